"""`mien bundles`: what a repository's bundles are to do, and who vouches for them.

It works on the folder, without a service.

A recognizer that serves the folder follows within seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mien.bundle import Bundle, bundle_folders, is_bundle, load_bundle
from mien.errors import BundleError, ConfigError, RolloutError, UnknownBundleError
from mien.rollout import FILE, Canary, Rollout, change_rollout, read_rollout
from mien.signing import TrustedKeys, make_key, read_signatures, sign

NONE = "none"
_FEWEST_DIGITS = 4


@dataclass(frozen=True)
class Repository:
    """The bundles of a folder, the latest first, and why its other folders are none."""

    folder: Path
    bundles: tuple[Bundle, ...]
    problems: tuple[tuple[Path, BundleError], ...]

    def named(self, name: str) -> Bundle:
        """The bundle of a folder's name, an id or its first digits. Raises UnknownBundleError."""
        found = {
            bundle.bundle_id: bundle
            for bundle in self.bundles
            if bundle.folder.name == name
            or (len(name) >= _FEWEST_DIGITS and bundle.bundle_id.startswith(name.lower()))
        }
        if len(found) == 1:
            return found.popitem()[1]
        for path, problem in self.problems:
            if path.name == name:
                raise problem
        raise UnknownBundleError(
            f"{name!r} names {len(found) or 'no'} bundles of {self.folder}: give a folder's name "
            f"or the first digits of an id, {_FEWEST_DIGITS} or more"
        )

    def promoted(self, state: Rollout) -> Bundle | None:
        """What is promoted: as decided, else what a recognizer starts with, the latest."""
        if state.promoted is None:
            return self.bundles[0] if self.bundles else None
        return next((x for x in self.bundles if x.bundle_id == state.promoted), None)


def open_repository(folder: Path) -> Repository:
    """Verify every bundle of a folder. Raises UnknownBundleError for what is no repository."""
    if is_bundle(folder) or not folder.is_dir():
        what = "is a bundle itself" if is_bundle(folder) else "is no folder"
        raise UnknownBundleError(f"{folder} {what}; --repository must have bundles in it")
    bundles: list[Bundle] = []
    problems: list[tuple[Path, BundleError]] = []
    for found in bundle_folders(folder):
        try:
            bundles.append(load_bundle(found, files=None))
        except BundleError as error:
            problems.append((found, error))
    bundles.sort(key=lambda x: (x.manifest.created, x.folder.name), reverse=True)
    return Repository(folder, tuple(bundles), tuple(problems))


def listing(folder: Path) -> str:
    """One line a bundle: its roles, id, codec, day, expressions and folder."""
    repository, state = open_repository(folder), read_rollout(folder)
    return "\n".join(_lines(repository, state)) or f"there is no bundle in {folder}"


def promote(folder: Path, name: str) -> str:
    """Let every device use a bundle; returns what to say."""
    repository = open_repository(folder)
    bundle = repository.named(name)

    def change(state: Rollout) -> Rollout:
        before = repository.promoted(state)
        if state.promoted is None and before is not None:
            state = replace(state, promoted=before.bundle_id)
        return state.promote(bundle.bundle_id)

    change_rollout(folder, change)
    return f"promoted: {_called(bundle)}"


def canary(folder: Path, name: str, share: float | None) -> str:
    """Let a share of the devices use a bundle; returns what to say."""
    if name == NONE:
        change_rollout(folder, lambda state: replace(state, canary=None))
        return "no canary"
    if share is None or not 0 < share <= 1:
        raise ConfigError(f"--share must be above 0 and at most 1, got {share}")
    repository = open_repository(folder)
    bundle = repository.named(name)

    def change(state: Rollout) -> Rollout:
        promoted = repository.promoted(state)
        if promoted is not None and promoted.bundle_id == bundle.bundle_id:
            raise RolloutError(f"{_called(bundle)} is promoted: every device uses it already")
        if promoted is not None:  # written down, so that the new one is not just the latest
            state = replace(state, promoted=promoted.bundle_id)
        return replace(state, canary=Canary(bundle.bundle_id, share))

    change_rollout(folder, change)
    return f"canary: {_called(bundle)}, {share:.1%} of the devices"


def shadow(folder: Path, name: str) -> str:
    """Let a bundle answer beside the promoted one; returns what to say."""
    if name == NONE:
        change_rollout(folder, lambda state: replace(state, shadow=None))
        return "no shadow"
    repository = open_repository(folder)
    bundle = repository.named(name)

    def change(state: Rollout) -> Rollout:
        promoted = repository.promoted(state)
        if promoted is None or promoted.bundle_id == bundle.bundle_id:
            raise RolloutError(f"{_called(bundle)} has no promoted bundle to be compared with")
        if promoted.manifest.codec_id != bundle.manifest.codec_id:
            raise RolloutError(
                f"{_called(bundle)} has another codec than the promoted {_called(promoted)}: a "
                "shadow must read the same payloads, so tables, latent and image must be equal"
            )
        return replace(state, promoted=promoted.bundle_id, shadow=bundle.bundle_id)

    change_rollout(folder, change)
    return f"shadow: {_called(bundle)}"


def rollback(folder: Path) -> str:
    """Return to the bundle promoted before; returns what to say. A canary goes on."""
    repository = open_repository(folder)

    def change(state: Rollout) -> Rollout:
        after = state.roll_back()
        repository.named(after.promoted or "")  # must be there, and right
        return after

    state = change_rollout(folder, change)
    return f"promoted: {_called(repository.named(state.promoted or ''))}"


def new_key(path: Path) -> str:
    """Make a key pair to sign bundles with; returns what to say."""
    public, name = make_key(path)
    return f"key {name}: keep {path} secret, give {public} to who is to trust it (--bundle_keys)"


def sign_bundle(folder: Path, name: str, key: Path) -> str:
    """Sign a bundle, all of whose files are right; returns what to say."""
    bundle = open_repository(folder).named(name)
    return f"{_called(bundle)} is signed by key {sign(bundle.folder, bundle.bundle_id, key)}"


def verify(folder: Path, name: str | None, keys_folder: Path) -> str:
    """Check who has signed a bundle, or all of a repository; returns what to say.

    Raises the BundleError of the first that is not signed by a trusted key, or not right.
    """
    keys, repository = TrustedKeys.load(keys_folder), open_repository(folder)
    if name is None:
        for _, problem in repository.problems:
            raise problem
    bundles = repository.bundles if name is None else (repository.named(name),)
    if not bundles:
        raise UnknownBundleError(f"there is no bundle in {folder}")
    signers = [keys.check(x.bundle_id, read_signatures(x.folder)) for x in bundles]
    said = zip(bundles, signers, strict=True)
    return "\n".join(f"{_called(bundle)}: signed by key {key}" for bundle, key in said)


def _lines(repository: Repository, state: Rollout) -> Iterator[str]:
    promoted = repository.promoted(state)
    for bundle in repository.bundles:
        manifest = bundle.manifest
        yield "  ".join(
            (
                f"{_roles(bundle.bundle_id, state, promoted):<22}",
                bundle.bundle_id[:12],
                f"codec {manifest.codec_id[:8]}",
                manifest.created,
                f"{len(manifest.expressions)} expressions",
                bundle.folder.name,
            )
        )
    for path, problem in repository.problems:
        yield f"{problem.code:<22}  {path.name}: {problem}"
    known = {bundle.bundle_id for bundle in repository.bundles}
    for bundle_id in state.named:
        if bundle_id not in known:
            yield f"{_roles(bundle_id, state, None):<22}  {bundle_id[:12]}  is not here ({FILE})"


def _roles(bundle_id: str, state: Rollout, promoted: Bundle | None) -> str:
    roles = []
    if bundle_id == (promoted.bundle_id if promoted else state.promoted):
        roles.append("promoted" if state.promoted else "promoted (the latest)")
    if state.canary and bundle_id == state.canary.bundle_id:
        roles.append(f"canary {state.canary.share:.1%}")
    if bundle_id == state.shadow:
        roles.append("shadow")
    if bundle_id in state.previous:
        roles.append(f"previous {state.previous.index(bundle_id) + 1}")
    return ", ".join(roles) or "-"


def _called(bundle: Bundle) -> str:
    return f"{bundle.bundle_id[:12]} ({bundle.folder.name})"
