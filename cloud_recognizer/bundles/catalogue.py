"""The bundles in service, and which of them does what.

    add ─▶ offered ─▶ retire ─▶ kept while a Lease holds it ─▶ gone
              └─▶ withdraw: a probe failed; kept, and offered to nobody

The event loop changes it; threads of the batcher read it. Every change makes a new `_View`, so a
reader sees one state or the next.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Final, Self

from cloud_recognizer.metrics import Metrics
from cloud_recognizer.model import ExpressionModel
from mien.bitstream import Limits, bundle_tag, payload_tag
from mien.errors import UnavailableError, UnknownBundleError, WrongBundleError
from mien.rollout import Canary, Rollout

PROMOTED: Final = "promoted"
CANARY: Final = "canary"
SHADOW: Final = "shadow"


@dataclass(frozen=True, slots=True)
class _View:
    """models: all that can decode. offered: the sound ones of those not retired, promoted first."""

    models: MappingProxyType[str, ExpressionModel]
    offered: tuple[ExpressionModel, ...] = ()
    canary: tuple[ExpressionModel, Canary] | None = None
    shadow: ExpressionModel | None = None


class Catalogue:
    """Models by bundle id; iterates over those that are offered, the promoted one first."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits = limits
        self._metrics = metrics
        self._models: dict[str, ExpressionModel] = {}
        self._retired: set[str] = set()
        self._withdrawn: set[str] = set()
        self._uses: Counter[str] = Counter()
        self._rollout = Rollout()
        self._roles: dict[str, str] = {}
        self._listeners: list[Callable[[], None]] = []
        self._view = _View(MappingProxyType({}))

    def __iter__(self) -> Iterator[ExpressionModel]:
        return iter(self._view.offered)

    def __len__(self) -> int:
        """How many models are in memory."""
        return len(self._view.models)

    @property
    def promoted(self) -> ExpressionModel:
        """What devices are asked to use. Raises UnavailableError while there is nothing sound."""
        if not self._view.offered:
            raise UnavailableError(
                "no bundle is in service here whose golden probe holds; connect to another server"
            )
        return self._view.offered[0]

    @property
    def rollout(self) -> Rollout:
        """What was decided, as it was followed last."""
        return self._rollout

    @property
    def sound(self) -> bool:
        """Whether there is a bundle to offer."""
        return bool(self._view.offered)

    @property
    def served(self) -> tuple[ExpressionModel, ...]:
        """Those that are not retired, the withdrawn ones among them."""
        return tuple(m for key, m in self._models.items() if key not in self._retired)

    @property
    def in_memory(self) -> Mapping[str, ExpressionModel]:
        """All that can decode, by id, those included that only wait for their last stream."""
        return self._view.models

    def wanted(self, device_id: str) -> ExpressionModel:
        """The bundle that a device is to use. Raises UnavailableError as `promoted` does."""
        canary = self._view.canary
        return canary[0] if canary and canary[1].takes(device_id) else self.promoted

    def offered(self, bundle_id: str) -> ExpressionModel:
        """A model that a device may begin with. Raises UnknownBundleError."""
        for model in self._view.offered:
            if model.bundle_id == bundle_id:
                return model
        raise UnknownBundleError(
            f"bundle {bundle_id[:64]!r} is not served here; ListBundles names those that are"
        )

    def of_payload(self, payload: bytes) -> tuple[ExpressionModel, ...]:
        """The models whose bundle may have coded a payload, at least one; mostly one.

        Raises WrongBundleError where none may, TruncatedError and VersionError.
        """
        tag = payload_tag(payload)
        models = self._view.models
        found = tuple(model for key, model in models.items() if bundle_tag(key) == tag)
        if not found:
            raise WrongBundleError(
                f"the payload was coded with a bundle whose id starts {tag:x}, which is not "
                "served here; ListBundles names those that are"
            )
        return found

    def shadow_of(self, model: ExpressionModel) -> ExpressionModel | None:
        """The shadow, where it can answer what `model` answers: it has the same codec."""
        shadow = self._view.shadow
        if shadow is None or shadow is model or shadow.codec_id != model.codec_id:
            return None
        return shadow

    def lease(self) -> "Lease":
        """Something to hold bundles in service with."""
        return Lease(self)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` on the event loop after every change of what is offered."""
        self._listeners.append(listener)

    def add(self, model: ExpressionModel, difference: float) -> None:
        """Offer a model that is warm and proven; it may replace one of the same id.

        difference: what `ExpressionModel.prove` has returned.
        """
        self._models[model.bundle_id] = model
        self._retired.discard(model.bundle_id)
        self._metrics.model_info.labels(model.bundle_id, model.provider).set(1)
        self._metrics.probe_difference.labels(model.bundle_id).set(difference)
        for counter in (self._metrics.bundle_faces, self._metrics.bundle_payload_bytes):
            counter.labels(model.bundle_id)  # shown at zero
        self._resolve()

    def retire(self, bundle_id: str) -> None:
        """Offer a bundle no more; its model goes when the last stream that may use it has gone."""
        self._retired.add(bundle_id)
        self._withdrawn.discard(bundle_id)
        self._drop_unused()
        self._resolve()

    def withdraw(self, bundle_id: str) -> None:
        """Offer a bundle no more, for its probe failed, until an operator names it again."""
        self._withdrawn.add(bundle_id)
        self._resolve()

    def reinstate(self, bundle_id: str) -> None:
        """Offer it again: its probe holds, and there was nothing else."""
        self._withdrawn.discard(bundle_id)
        self._resolve()

    def follow(self, rollout: Rollout) -> None:
        """Give the bundles the roles that were decided, as far as they are in service."""
        if rollout == self._rollout:
            return
        # Whoever names a bundle anew wants it in spite of what its probe said before.
        self._withdrawn -= set(rollout.named) - set(self._rollout.named)
        self._rollout = rollout
        self._resolve()

    def _use(self, bundle_id: str) -> None:
        self._uses[bundle_id] += 1

    def _release(self, bundle_id: str) -> None:
        self._uses[bundle_id] -= 1
        if not self._uses[bundle_id]:
            del self._uses[bundle_id]
            self._drop_unused()
            self._resolve()

    def _drop_unused(self) -> None:
        for bundle_id in [key for key in self._retired if not self._uses[key]]:
            self._retired.discard(bundle_id)
            model = self._models.pop(bundle_id)
            self._metrics.model_info.remove(bundle_id, model.provider)
            self._metrics.probe_difference.remove(bundle_id)
            self._metrics.bundle_faces.remove(bundle_id)
            self._metrics.bundle_payload_bytes.remove(bundle_id)

    def _resolve(self) -> None:
        """Make the next view, and tell about it."""
        out = self._retired | self._withdrawn
        sound = {key: model for key, model in self._models.items() if key not in out}
        rollout = self._rollout
        canary = rollout.canary
        before = self._view
        self._view = _View(
            MappingProxyType(dict(self._models)),
            self._in_order(sound),
            (sound[canary.bundle_id], canary) if canary and canary.bundle_id in sound else None,
            sound.get(rollout.shadow or ""),
        )
        self._show_roles()
        if (before.offered, before.canary) != (self._view.offered, self._view.canary):
            for listener in self._listeners:
                listener()

    def _in_order(self, sound: dict[str, ExpressionModel]) -> tuple[ExpressionModel, ...]:
        """The promoted one first, then the latest.

        Where the promoted one is not here, the one promoted before it, or the one that took its
        place until now: what comes in beside it changes nothing by itself.
        """
        latest = sorted(sound.values(), key=_age, reverse=True)
        current = [model.bundle_id for model in self._view.offered[:1]]
        wishes = [self._rollout.promoted or "", *self._rollout.previous, *current]
        chosen = [sound[key] for key in wishes if key in sound][:1] or latest[:1]
        return (*chosen, *(model for model in latest if model not in chosen))

    def _show_roles(self) -> None:
        view = self._view
        roles = {
            PROMOTED: view.offered[0].bundle_id if view.offered else None,
            CANARY: view.canary[0].bundle_id if view.canary else None,
            SHADOW: view.shadow.bundle_id if view.shadow else None,
        }
        now = {role: bundle_id for role, bundle_id in roles.items() if bundle_id}
        for role, bundle_id in self._roles.items():
            if now.get(role) != bundle_id:
                self._metrics.bundle_role.remove(bundle_id, role)
        for role, bundle_id in now.items():
            self._metrics.bundle_role.labels(bundle_id, role).set(1)
        self._roles = now
        self._metrics.canary_share.set(view.canary[1].share if view.canary else 0)


class Lease:
    """The bundles that one stream may still send; they stay in service while it holds them."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._held: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._let_go(self._held)

    def take(self, bundle_id: str) -> None:
        """Hold a bundle too, where it is in service."""
        if bundle_id not in self._held and bundle_id in self._catalogue._view.models:
            self._held.add(bundle_id)
            self._catalogue._use(bundle_id)

    def keep_only(self, bundle_id: str) -> None:
        """The stream has changed to this bundle, and nothing of the others comes any more."""
        if self._held != {bundle_id}:
            self._let_go(self._held - {bundle_id})

    def _let_go(self, bundle_ids: set[str]) -> None:
        self._held = self._held - bundle_ids
        for bundle_id in bundle_ids:
            self._catalogue._release(bundle_id)


def _age(model: ExpressionModel) -> tuple[str, str]:
    return model.bundle.manifest.created, model.bundle.folder.name
