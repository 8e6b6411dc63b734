"""The catalogue kept in step with a folder: bundles that come and go, and rollout.json.

    folder ─▶ BundleScanner (thread) ─▶ load and prove (thread) ─▶ Catalogue
                                          rollout.json ◀──▶ roles ─┘

Nothing here runs a network or hashes a file on the event loop, and nothing is offered that has not
answered its golden probe on this machine.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.bundles.scanner import BundleScanner, Found
from cloud_recognizer.metrics import TOO_MANY, Metrics
from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from mien.background import background
from mien.bitstream import Limits
from mien.bundle import MANIFEST, Bundle, is_bundle
from mien.errors import BundleError, MienError, RolloutError, UnknownBundleError
from mien.rollout import FILE, Rollout, change_rollout, read_rollout
from mien.signing import TrustedKeys

_log = logging.getLogger(__name__)

LoadModel = Callable[[Bundle, RuntimeOptions, Limits], ExpressionModel]


class Repository:
    """Serves what lies in a folder, which is a bundle itself or has bundles in it.

    max_bundles: models in memory; what comes beyond is refused.
    keys: as `BundleScanner` takes them.
    """

    def __init__(
        self,
        folder: Path,
        catalogue: Catalogue,
        metrics: Metrics,
        options: RuntimeOptions,
        *,
        max_bundles: int,
        load: LoadModel = ExpressionModel,
        keys: TrustedKeys | None = None,
    ) -> None:
        self._folder = folder
        self._catalogue = catalogue
        self._metrics = metrics
        self._options = options
        self._max_bundles = max_bundles
        self._load = load
        self._scanner = BundleScanner(folder, keys)
        # Bundles that were refused after their files had been found right; reported already.
        self._refused: dict[str, MienError | None] = {}
        self._rollout_problem = ""
        self._nothing_left = False

    async def open(self) -> None:
        """Load what is there.

        Raises UnknownBundleError, or the first BundleError, where nothing can be served, and
        ConfigError for a provider that is not there.
        """
        found = await asyncio.to_thread(self._scanner.scan)
        await self._follow_rollout()
        await self._take_in(found)
        if self._catalogue.sound:
            return
        for problem in (*self._scanner.problems, *self._refused.values()):
            if problem is not None:
                raise problem
        raise UnknownBundleError(
            f"there is no bundle in {self._folder}: "
            f"a bundle is a folder with a {MANIFEST}, made by `mien-train export`"
        )

    def watched(self, poll_s: float) -> AbstractAsyncContextManager[None]:
        """Follow the folder while the context lasts."""
        return background(self._watch(poll_s), "repository")

    async def _watch(self, poll_s: float) -> None:
        while True:
            await asyncio.sleep(poll_s)
            try:
                await self._look()
            except Exception:  # one bad look must not end the watch
                _log.exception("looking at %s failed", self._folder)
            self._metrics.looks.inc()

    async def _look(self) -> None:
        found = await asyncio.to_thread(self._scanner.scan)
        for error in found.wrong:
            self._refuse(error.code, str(error))
        if await self._take_in(found):
            await self._pin()
        await self._follow_rollout()
        self._retire(found)

    async def _take_in(self, found: Found) -> bool:
        """Load and prove what is new; returns whether there was something."""
        self._metrics.incomplete_bundles.set(found.incomplete)
        self._refused = {key: why for key, why in self._refused.items() if key in found.bundles}
        served = {model.bundle_id: model.bundle.folder for model in self._catalogue.served}
        new = [
            bundle
            for key, bundle in found.bundles.items()
            if key not in self._refused and served.get(key) != bundle.folder
        ]
        taken = False
        for bundle in sorted(new, key=self._urgency, reverse=True):
            taken |= await self._load_one(bundle, known=bundle.bundle_id in served)
        return taken

    def _urgency(self, bundle: Bundle) -> tuple[bool, str, str]:
        named = bundle.bundle_id in self._catalogue.rollout.named
        return named, bundle.manifest.created, bundle.folder.name

    async def _load_one(self, bundle: Bundle, *, known: bool) -> bool:
        if not known and len(self._catalogue) >= self._max_bundles:
            self._refused[bundle.bundle_id] = None
            self._refuse(
                TOO_MANY,
                f"{bundle.folder}: {self._max_bundles} bundles are in memory (--max_bundles)",
            )
            return False
        try:
            model, difference = await asyncio.to_thread(self._proven, bundle)
        except BundleError as error:
            self._refused[bundle.bundle_id] = error
            self._refuse(error.code, str(error))
            return False
        _log.info("bundle %s (%s) is in service", bundle.bundle_id[:12], bundle.manifest.name)
        self._catalogue.add(model, difference)
        return True

    def _proven(self, bundle: Bundle) -> tuple[ExpressionModel, float]:
        model = self._load(bundle, self._options, self._catalogue.limits)
        return model, model.prove()

    def _retire(self, found: Found) -> None:
        """Let go what has left the folder.

        The last that can be offered stays, for a volume that vanishes must not stop a fleet; unless
        nobody who is trusted vouches for it any more, which is said of a bundle that is there.
        """
        served = {model.bundle_id: model.bundle.folder for model in self._catalogue.served}
        left = set(served) - set(found.bundles)
        last = self._catalogue.sound and not any(
            x.bundle_id in found.bundles for x in self._catalogue
        )
        if last:
            left = {bundle_id for bundle_id in left if served[bundle_id] in found.distrusted}
        for bundle_id in left:
            _log.info("bundle %s has left; it goes with its last stream", bundle_id[:12])
            self._catalogue.retire(bundle_id)
        if last and not self._catalogue.sound:
            _log.error("no bundle in %s is signed as it must be: none is in service", self._folder)
        elif last and not self._nothing_left:
            _log.error("no bundle is left in %s; those in memory stay in service", self._folder)
        self._nothing_left = last and self._catalogue.sound

    def _refuse(self, code: str, why: str) -> None:
        _log.error("a bundle is refused: %s", why)
        self._metrics.refused_bundles.labels(code).inc()

    async def _follow_rollout(self) -> None:
        if is_bundle(self._folder):
            return
        try:
            rollout = await asyncio.to_thread(read_rollout, self._folder)
        except RolloutError as error:
            self._rollout_failed(error)
            return
        self._rollout_problem = ""
        if rollout != self._catalogue.rollout:
            _log.info("%s: %s", FILE, rollout)
            self._catalogue.follow(rollout)

    async def _pin(self) -> None:
        """Write down what is promoted when something comes beside it, for the next start.

        Without the file a start takes the latest, which is then perhaps what came.
        """
        if self._catalogue.sound and self._catalogue.rollout.promoted is None:
            promoted = self._catalogue.promoted.bundle_id
            await self._change(lambda x: x if x.promoted else x.promote(promoted))

    async def roll_back(self, model: ExpressionModel, why: str) -> None:
        """Take a bundle whose probe failed from its roles, here at once and in the file."""
        _log.error("bundle %s is withdrawn: %s", model.bundle_id[:12], why)
        self._metrics.rollbacks.inc()
        self._catalogue.withdraw(model.bundle_id)
        if not self._catalogue.sound:
            _log.error("there is no other bundle to return to")
            return
        promoted = self._catalogue.promoted.bundle_id
        _log.warning("bundle %s is promoted now", promoted[:12])
        await self._change(lambda x: x.without(model.bundle_id, promoted))

    async def _change(self, change: Callable[[Rollout], Rollout]) -> None:
        if is_bundle(self._folder):
            return
        try:
            rollout = await asyncio.to_thread(change_rollout, self._folder, change)
        except RolloutError as error:
            # What was decided holds in memory, until the folder can be written or we end.
            self._rollout_failed(error)
        else:
            self._catalogue.follow(rollout)

    def _rollout_failed(self, error: RolloutError) -> None:
        if str(error) != self._rollout_problem:
            self._rollout_problem = str(error)
            self._metrics.rollout_errors.inc()
            _log.error("%s; what was decided before holds", error)
