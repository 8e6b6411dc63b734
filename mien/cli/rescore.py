"""`mien rescore`: the faces of an archive through another bundle's classifier.

Each part of the archive is a task; tasks run in this process, in several, or on Ray's workers, and
all run the same function. What is done stays beside the output until all is, so that a run that is
stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cloud_recognizer.archive.planning import PartJob, plan
from cloud_recognizer.archive.rescoring import PartDone, gather, rescore_part
from mien.errors import ConfigError, MienError, UnavailableError
from mien.folder_lock import FolderLock
from mien.signing import TrustedKeys

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class RescoreOptions:
    """workers: processes; 1 is this one. ray: on a cluster (RAY_ADDRESS), or a local one.
    bundle_keys: folder of public keys, one of which must have signed the bundle.
    """

    archive: Path
    bundle: Path
    output: Path
    workers: int = 1
    ray: bool = False
    any_analysis: bool = False
    bundle_keys: Path | None = None


def rescore(options: RescoreOptions) -> str:
    """Write the output, one row a face; returns in words what came of it.

    Raises SourceError without an archive, for a part that is damaged and where a worker does not
    see the archive, ConfigError, BundleError for a bundle that does not fit, and UnavailableError
    without Ray.
    """
    if options.workers < 1:
        raise ConfigError(f"workers must be at least 1, got {options.workers}")
    if not options.output.parent.is_dir():
        raise ConfigError(f"output: there is no folder {options.output.parent}")
    work = options.output.with_name(options.output.name + ".parts")
    keys = TrustedKeys.load(options.bundle_keys) if options.bundle_keys else None
    made = plan(
        *(options.archive, options.bundle, work), any_analysis=options.any_analysis, keys=keys
    )
    jobs = made.jobs
    with _alone(work):
        done = list(_shown(_run(jobs, options), len(made.parts), len(made.parts) - len(jobs)))
        faces, damaged = gather(made, options.output)
    gone = sum(part.gone for part in done)
    said = [f"{options.output}: {faces} faces by bundle {made.bundle_id[:12]}"]
    if len(jobs) < len(made.parts):
        said.append(f"{len(made.parts) - len(jobs)} parts were done before")
    if gone:
        said.append(f"{gone} parts were deleted before their turn")
    if damaged:
        said.append(f"{damaged} chunks are damaged and left out")
    return "; ".join(said)


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    lock = FolderLock(work, timeout_s=0)
    try:
        lock.acquire()
    except TimeoutError:
        raise ConfigError(f"another run works in {work}") from None
    try:
        yield
    finally:
        lock.release()


def _run(jobs: Sequence[PartJob], options: RescoreOptions) -> Iterator[PartDone]:
    """Run the jobs, in whatever order they end."""
    if options.ray:
        yield from _on_ray(jobs)
    elif options.workers == 1:
        yield from map(rescore_part, jobs)
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.workers, spawn) as pool:
            try:
                for future in as_completed([pool.submit(rescore_part, job) for job in jobs]):
                    yield future.result()
            finally:  # what has not begun is not worth waiting for, when one has failed
                pool.shutdown(cancel_futures=True)


def _on_ray(jobs: Sequence[PartJob]) -> Iterator[PartDone]:
    """Raises UnavailableError where there is no cluster, or none can be started here."""
    import ray

    with _connected():
        task = ray.remote(rescore_part)
        waiting = [task.remote(job) for job in jobs]
        try:
            while waiting:
                ready, waiting = ray.wait(waiting)
                yield from _given(ready)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)


def _given(ready: list[Any]) -> list[PartDone]:
    """What tasks gave. Raises what one has raised: Ray's own words are its traceback."""
    import ray

    try:
        done: list[PartDone] = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, MienError):
            raise error.cause from None
        raise
    return done


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """A connection to Ray, unless the caller's process has one, which stays."""
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        # Ray's errors about this have no common root but Exception.
        except Exception as error:
            raise UnavailableError(
                f"there is no Ray, and none could be started: {error}"
            ) from error
        yield
    finally:
        ray.shutdown()  # also what has begun of one that could not be started


def _shown(done: Iterable[PartDone], parts: int, before: int) -> Iterator[PartDone]:
    columns = (TextColumn("parts"), BarColumn(), MofNCompleteColumn())
    faces = TextColumn("{task.fields[faces]} faces")
    console = Console(stderr=True)
    with Progress(*columns, faces, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("", total=parts, completed=before, faces=0)
        total = 0
        for part in done:
            total += part.faces
            progress.update(task, advance=1, faces=total)
            yield part
