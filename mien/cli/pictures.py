"""The demo's pictures: what the edge looked at, once more, for drawing into.

A file or a folder is read again. A camera's or a URL's frames come once: the edge keeps them in
`out`/frames while the demo runs, and they are deleted when the video is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mien.cli.annotate import Picture

# Photographs are looked at one by one, not as a film.
_STILLS_PER_S = 1.0


@dataclass(frozen=True)
class Pictures:
    """Where the pictures are: in the source itself, or in the folder `record`."""

    source: str
    record: Path | None

    @contextmanager
    def read(self) -> Iterator[Iterable[Picture]]:
        """The frames, in order. Raises SourceError."""
        from edge_encoder.camera import open_source
        from edge_encoder.capture.frames import frames_of
        from edge_encoder.capture.recording import read_recording

        if self.record is not None:
            yield read_recording(self.record)
            return
        with open_source(self.source) as source:
            yield frames_of(source)

    @property
    def fps(self) -> float | None:
        """Frames a second to show them at; None for as many as their times say."""
        from edge_encoder.capture.files import IMAGE_SUFFIXES

        path = Path(self.source)
        stills = path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES
        return _STILLS_PER_S if stills and self.record is None else None


@contextmanager
def pictures_of(source: str, out: Path) -> Iterator[Pictures]:
    """The pictures of a source, and no trace of recorded ones afterwards."""
    if Path(source).exists():
        yield Pictures(source, None)
        return
    record = out / "frames"
    # From a demo that was killed: they would be taken for this one's.
    shutil.rmtree(record, ignore_errors=True)
    try:
        yield Pictures(source, record)
    finally:
        shutil.rmtree(record, ignore_errors=True)
