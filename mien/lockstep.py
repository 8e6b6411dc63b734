"""The symbols of many chunks at once: each step of numpy takes one symbol of every chunk.

               position 0   1   2   …
    chunk 0            ●   ○   ○        One step: the same row of the tables, a search in its CDF
    chunk 1            ●   ○   ○        for all chunks, and a word for each interval that has
    chunk 2            ●   ○   ○        become narrow.

A step costs about the same for one chunk as for fifty, so this pays only from many on. Times and
boxes are read chunk by chunk, by mien.chunk_reading, and so are the later faces of a track: their
rows differ from chunk to chunk, and most have few symbols or none behind their stir. First faces go
together with those of the same level and prior.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import prod

import numpy as np
from numpy.typing import NDArray

from mien.chunk_reading import Given, Sizes, read_later, read_level, read_prior
from mien.errors import MalformedError
from mien.range_coder import FULL, NARROW, PRECISION, WORD
from mien.range_decoder import (
    CODE,
    POSITION,
    WIDTH,
    Rows,
    check_end,
    read_symbols,
)
from mien.side_reading import (
    BEFORE,
    FACE_FIELDS,
    NONE,
    TRACK_FIELDS,
    read_fields,
)

Step = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int, int]
"""Of one position: each bin's start, end and width, the escape's bin, and the symbol of bin 0."""


@dataclass(slots=True, eq=False)
class Lane:
    """One chunk while it is read, or why it cannot be. See mien.chunk_reading for what it holds.

    first: the first row of the prior that the face now read is coded by.
    """

    state: list[int]
    words: tuple[int, ...]
    faces: int
    first: int = 0
    tracks: list[int] = field(init=False)
    fields: list[int] = field(init=False)
    symbols: list[int] = field(init=False)
    error: MalformedError | None = None

    def __post_init__(self) -> None:
        self.tracks = [0] * (TRACK_FIELDS * self.faces)
        self.fields = [0] * (FACE_FIELDS * self.faces)

    def attempt(self, read: Callable[..., object], *arguments: object) -> None:
        """Take one function of mien.chunk_reading further, and keep its error."""
        try:
            read(self.state, self.words, *arguments)
        except MalformedError as error:
            self.error = error

    def read_prior(self, sizes: Sizes) -> None:
        """Read by which prior the face is coded, and keep its error."""
        try:
            self.first = read_prior(self.state, self.words, sizes)
        except MalformedError as error:
            self.error = error


class Lockstep:
    """Reads the lanes of a batch together; keeps nothing between calls.

    cdf, rows, given: as mien.chunk_reading wants them, in lists.
    sizes: levels, priors and positions.
    min_lanes: lanes below which each is read alone.
    """

    def __init__(
        self, cdf: list[int], rows: Rows, given: Given, sizes: Sizes, min_lanes: int
    ) -> None:
        self._cdf, self._rows, self._given, self._min_lanes = cdf, rows, given, min_lanes
        self._sizes, self._positions = sizes, sizes[2]
        self._first_rows = list(range(prod(sizes)))
        self._steps: dict[int, list[Step]] = {}

    def read(self, lanes: Sequence[Lane], limits: tuple[int, int, int]) -> None:
        """Read all lanes to their ends or errors."""
        for lane in lanes:
            lane.symbols = [0] * (lane.faces * self._positions)
            lane.attempt(read_level, self._sizes)
        active, face = [lane for lane in lanes if lane.error is None], 0
        while active:
            for lane in active:
                lane.attempt(read_fields, self._cdf, limits, lane.tracks, lane.fields, face)
            whole = [lane for lane in active if lane.error is None]
            self._read_first([lane for lane in whole if lane.state[BEFORE] == NONE], face)
            self._read_later([lane for lane in whole if lane.state[BEFORE] != NONE], face)
            face += 1
            for lane in active:
                if lane.faces == face and lane.error is None:
                    lane.attempt(check_end)
            active = [lane for lane in active if lane.faces > face and lane.error is None]

    def _read_later(self, lanes: Sequence[Lane], face: int) -> None:
        size = self._positions
        for lane in lanes:
            chosen = [0] * size, self._first_rows
            lane.attempt(
                *(read_later, self._cdf, self._rows, self._given, self._sizes, chosen),
                *(lane.tracks, lane.symbols, face * size),
            )

    def _read_first(self, lanes: Sequence[Lane], face: int) -> None:
        alike: dict[int, list[Lane]] = {}
        for lane in lanes:
            lane.read_prior(self._sizes)
            if lane.error is None:
                alike.setdefault(lane.first, []).append(lane)
        size = self._positions
        place = slice(face * size, (face + 1) * size)
        for first, together in alike.items():
            if len(together) >= self._min_lanes:
                steps = self._steps_from(first)
                latents = _Abreast(together, size).read(steps, self._min_lanes, self._read_alone)
                for lane, latent in zip(together, latents, strict=True):
                    lane.symbols[place] = latent.tolist()
            else:
                for lane in together:
                    lane.symbols[place] = self._read_alone(lane, 0)

    def _read_alone(self, lane: Lane, begin: int) -> list[int]:
        """A latent of which only the symbols from `begin` on are read."""
        latent = [0] * self._positions
        rows = self._first_rows[lane.first : lane.first + self._positions]
        lane.attempt(read_symbols, self._cdf, self._rows, rows, latent, 0, begin)
        return latent

    def _steps_from(self, first: int) -> list[Step]:
        """Those of one level and prior, made when they are first read."""
        if first not in self._steps:
            rows = islice(zip(*self._rows[3:], strict=True), first, first + self._positions)
            self._steps[first] = [
                _step(self._cdf[begin : end + 1], offset) for begin, end, offset in rows
            ]
        return self._steps[first]


def _step(cdf: list[int], offset: int) -> Step:
    counts = np.array(cdf, np.int64)
    return counts[:-1].copy(), counts[1:].copy(), np.diff(counts), len(cdf) - 2, offset


class _Abreast:
    """The states of lanes as arrays, int64 (lanes,), for the symbols of one face each."""

    def __init__(self, lanes: Sequence[Lane], steps: int) -> None:
        self._lanes = lanes
        self._code = np.array([lane.state[CODE] for lane in lanes], np.int64)
        self._width = np.array([lane.state[WIDTH] for lane in lanes], np.int64)
        # A step takes one word at most; behind a body's end there are zeros.
        self._words = np.zeros((len(lanes), steps + 1), np.uint16)
        for row, lane in zip(self._words, lanes, strict=True):
            words = lane.words[lane.state[POSITION] :][:steps]
            row[: len(words)] = words
        self._first = np.arange(len(lanes)) * (steps + 1)
        self._next = self._first.copy()
        self._together = set(range(len(lanes)))

    def read(
        self, steps: Sequence[Step], min_lanes: int, read_alone: Callable[[Lane, int], list[int]]
    ) -> NDArray[np.int32]:
        """One symbol a step of each lane, int32 (lanes, steps); lanes get states and errors.

        A lane leaves at the first escape or damage, and is read alone from there; when fewer than
        min_lanes are left, all are. So no bytes make this much slower than reading each alone.
        """
        symbols = np.empty((len(steps), len(self._lanes)), np.int32)
        alone: dict[int, tuple[int, list[int]]] = {}
        for position, (starts, ends, widths, escape, offset) in enumerate(steps):
            share = self._width >> PRECISION
            index = ends.searchsorted(self._code // share, "right")
            if index.max() >= escape:
                leaving = np.flatnonzero(index >= escape).tolist()
                if len(self._together) - len(leaving) < min_lanes:
                    leaving = sorted(self._together)
                for lane in leaving:
                    self._give_back(lane)
                    alone[lane] = position, read_alone(self._lanes[lane], position)[position:]
                    self._forget(lane)
                    share[lane], index[lane] = FULL >> PRECISION, 0
                if not self._together:
                    break
            self._code -= starts.take(index) * share
            self._width = widths.take(index) * share
            self._widen()
            np.add(index, offset, out=symbols[position], casting="same_kind")
        for lane in self._together:
            self._give_back(lane)
        for lane, (position, rest) in alone.items():
            symbols[position:, lane] = rest
        return np.ascontiguousarray(symbols.T)

    def _widen(self) -> None:
        narrow = self._width < NARROW
        shift = narrow * WORD
        self._code <<= shift
        self._code |= self._words.take(self._next) * narrow
        self._width <<= shift
        self._next += narrow

    def _forget(self, lane: int) -> None:
        """Go on with zeros, which always mean bin 0, in the place of a lane that has left."""
        self._together.discard(lane)
        self._code[lane], self._width[lane] = 0, FULL
        self._words[lane] = 0

    def _give_back(self, lane: int) -> None:
        state = self._lanes[lane].state
        state[CODE], state[WIDTH] = int(self._code[lane]), int(self._width[lane])
        state[POSITION] += int(self._next[lane] - self._first[lane])
