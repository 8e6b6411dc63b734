"""What a frame is, and what gives them."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import cv2
import numpy as np
import numpy.typing as npt

from edge_encoder.detector.base import Image


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    index: position in the source, from 0; frames that were not read count.
    t_s: seconds since the source's start. image: uint8 (H, W, 3), blue, green, red.
    """

    index: int
    t_s: float
    image: Image


@dataclass(frozen=True)
class Gap:
    """A live source was lost here; what comes next may show another scene."""


class Source(Protocol):
    """A context manager over frames; iterating raises SourceError when reading fails.

    A live source that fails is opened again, and gives a `Gap` for the time between.
    """

    @property
    def name(self) -> str:
        """The file, folder, camera or URL, without credentials."""
        ...

    @property
    def live(self) -> bool:
        """Whether frames that nobody reads in time are lost."""
        ...

    @property
    def stills(self) -> bool:
        """Whether a frame says little about where faces are in the next one."""
        ...

    @property
    def dropped(self) -> int:
        """Frames lost, or that could not be read, so far."""
        ...

    def __iter__(self) -> Iterator[Frame | Gap]: ...

    def interrupt(self) -> None:
        """From any thread: whoever waits for a frame is told that there are no more."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def frames_of(source: Source) -> Iterator[Frame]:
    """The frames alone, for those who do not mind gaps."""
    return (item for item in source if isinstance(item, Frame))


def colour(image: npt.NDArray[Any]) -> Image:
    """As uint8 (H, W, 3), whatever the decoder gave."""
    image = np.asarray(image, np.uint8)
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    return image
