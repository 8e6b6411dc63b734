"""Which bundle of a repository does what: rollout.json, which operators and rollbacks change.

    {"format": 1,
     "promoted": "3fa9…",                               what devices are asked to use
     "previous": ["81c0…"],                             promoted before, the latest first
     "canary": {"bundle_id": "c4d1…", "share": 0.1},    what a tenth of them is asked to use
     "shadow": "90ee…"}                                 answers too, and is only compared

Ids are whole bundle ids. A file that is not there is `Rollout()`: nothing was decided yet.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mien.errors import RolloutError
from mien.folder_lock import FolderLock
from mien.messages.ids import is_bundle_id
from mien.whole_file import replace_file

FILE = "rollout.json"
FORMAT = 1
MAX_PREVIOUS = 16
_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Canary:
    """A bundle that a share, 0 to 1, of the devices is asked to use."""

    bundle_id: str
    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise RolloutError(f"a canary's share must be from 0 to 1, got {self.share}")

    def takes(self, device_id: str) -> bool:
        """Whether a device belongs to the share.

        A hash decides, so that a device stays where it is, also when the share grows. The bundle
        id is hashed with it: it is not always the same devices that try what is new.
        """
        digest = hashlib.sha256(f"{self.bundle_id}/{device_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2.0**64


@dataclass(frozen=True, slots=True)
class Rollout:
    """What was decided. Methods return the next state and change nothing."""

    promoted: str | None = None
    previous: tuple[str, ...] = ()
    canary: Canary | None = None
    shadow: str | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """The bundles that have something to do now."""
        canary = self.canary.bundle_id if self.canary else None
        return tuple(dict.fromkeys(x for x in (self.promoted, canary, self.shadow) if x))

    def promote(self, bundle_id: str) -> "Rollout":
        """Let every device use a bundle; what was promoted until now comes first in `previous`."""
        if bundle_id == self.promoted:
            return self._freed(bundle_id)
        before = [self.promoted, *self.previous]
        previous = tuple(x for x in before if x is not None and x != bundle_id)
        state = replace(self, promoted=bundle_id, previous=previous[:MAX_PREVIOUS])
        return state._freed(bundle_id)

    def roll_back(self) -> "Rollout":
        """Return to the bundle promoted before. Raises RolloutError where there is none."""
        if not self.previous:
            raise RolloutError("no bundle was promoted before, so there is none to return to")
        state = replace(self, promoted=self.previous[0], previous=self.previous[1:])
        return state._freed(self.previous[0])

    def without(self, bundle_id: str, promoted: str) -> "Rollout":
        """Give a bundle that failed nothing to do any more.

        promoted: what is to take its place where it was promoted itself, or nothing was.
        """
        stays = self.promoted if self.promoted not in (None, bundle_id) else promoted
        previous = tuple(x for x in self.previous if x not in (bundle_id, stays))
        return replace(self, promoted=stays, previous=previous)._freed(bundle_id)

    def _freed(self, bundle_id: str) -> "Rollout":
        """It is no canary and no shadow of itself any more."""
        canary = self.canary if self.canary and self.canary.bundle_id != bundle_id else None
        return replace(
            self, canary=canary, shadow=None if self.shadow == bundle_id else self.shadow
        )

    def to_json(self) -> bytes:
        """As it stands in the file."""
        canary = self.canary
        document = {
            "format": FORMAT,
            "promoted": self.promoted,
            "previous": self.previous,
            "canary": {"bundle_id": canary.bundle_id, "share": canary.share} if canary else None,
            "shadow": self.shadow,
        }
        return (json.dumps(document, indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Rollout":
        """Read what `to_json`, or a careful editor, has written. Raises RolloutError."""
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RolloutError(f"{FILE} is not JSON: {error}") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise RolloutError(f"{FILE} must be an object of format {FORMAT}")
        if unknown := set(document) - {"format", "promoted", "previous", "canary", "shadow"}:
            raise RolloutError(f"{FILE} has fields unknown here: {', '.join(sorted(unknown))[:80]}")
        previous = document.get("previous", [])
        if not isinstance(previous, list) or len(previous) > MAX_PREVIOUS:
            raise RolloutError(f"{FILE}: previous must be a list of at most {MAX_PREVIOUS} ids")
        return cls(
            promoted=_optional_id(document, "promoted"),
            previous=tuple(_id(item, "previous") for item in previous),
            canary=_canary(document.get("canary")),
            shadow=_optional_id(document, "shadow"),
        )


def read_rollout(repository: Path) -> Rollout:
    """The state of a repository folder. Raises RolloutError for a file that cannot be read."""
    try:
        with (repository / FILE).open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return Rollout()
    except OSError as error:
        raise RolloutError(f"{repository / FILE} cannot be read: {error}") from error
    if len(data) > _MAX_BYTES:
        raise RolloutError(f"{repository / FILE} has more than {_MAX_BYTES} bytes")
    return Rollout.from_json(data)


def change_rollout(repository: Path, change: Callable[[Rollout], Rollout]) -> Rollout:
    """Read, change and write the state, which nobody else changes meanwhile; returns the new one.

    Readers see the old file or the new one, never a part. Raises RolloutError, also where the
    folder cannot be written, and what `change` raises.
    """
    try:
        with FolderLock(repository):
            before = read_rollout(repository)
            after = change(before)
            if after != before:
                replace_file(repository / FILE, after.to_json())
            return after
    except OSError as error:
        raise RolloutError(f"{repository / FILE} cannot be written: {error}") from error


def _optional_id(document: dict[str, Any], name: str) -> str | None:
    return None if document.get(name) is None else _id(document[name], name)


def _id(value: object, name: str) -> str:
    if not isinstance(value, str) or not is_bundle_id(value):
        raise RolloutError(f"{FILE}: {name} must name bundles by 64 hexadecimal digits")
    return value


def _canary(value: object) -> Canary | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"bundle_id", "share"}:
        raise RolloutError(f"{FILE}: canary must have bundle_id and share, or be null")
    share = value["share"]
    if not isinstance(share, int | float) or isinstance(share, bool):
        raise RolloutError(f"{FILE}: canary.share must be a number")
    return Canary(_id(value["bundle_id"], "canary.bundle_id"), share)
