"""Keeping the frames that were looked at, for those who ask for it: a demo, or a bug report.

Frames are pictures of people: nothing is kept unless the operator names a folder, and who reads a
recording is expected to delete it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2

from edge_encoder.capture.frames import Frame, Gap, Source, colour
from mien.errors import ConfigError

_NAME = re.compile(r"frame-(\d+)-(\d+)\.jpg")


class RecordedSource:
    """A source whose frames are also written to a folder, one JPEG each, as they are taken.

    Raises ConfigError where the folder cannot be written.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self._source = source
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"record: {folder} cannot be made: {error.strerror}") from error

    @property
    def name(self) -> str:
        """The recorded source's."""
        return self._source.name

    @property
    def live(self) -> bool:
        """The recorded source's."""
        return self._source.live

    @property
    def stills(self) -> bool:
        """The recorded source's."""
        return self._source.stills

    @property
    def dropped(self) -> int:
        """The recorded source's."""
        return self._source.dropped

    def interrupt(self) -> None:
        """The recorded source's."""
        self._source.interrupt()

    def __iter__(self) -> Iterator[Frame | Gap]:
        for frame in self._source:
            if isinstance(frame, Gap):
                yield frame
                continue
            name = f"frame-{frame.index:08d}-{round(frame.t_s * 1e6):014d}.jpg"
            if not cv2.imwrite(str(self._folder / name), frame.image):
                raise ConfigError(f"record: {self._folder / name} cannot be written; disk full?")
            yield frame

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._source.__exit__(kind, error, traceback)


def read_recording(folder: Path) -> Iterator[Frame]:
    """The frames of a recording, with the indices and times they had."""
    for path in sorted(folder.iterdir()):
        if match := _NAME.fullmatch(path.name):
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is not None:  # cut off when the recording was
                yield Frame(int(match[1]), int(match[2]) / 1e6, colour(image))
