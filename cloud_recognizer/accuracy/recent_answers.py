"""What was answered a short while ago, for people's labels to be compared with. In memory only.

keep(chunk) ─▶ by age and by faces, the oldest go ─▶ take(face), once
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import Counter


class ChunkKey(NamedTuple):
    """What a chunk is known by."""

    device_id: str
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Answer:
    """All that is remembered of a face. confidence: calibrated."""

    expression: str
    confidence: float


@dataclass(slots=True)
class AnsweredChunk:
    """The answers of one chunk, None for a face that has its label. expressions: the bundle's."""

    answered_s: float
    bundle_id: str
    group: str
    expressions: tuple[str, ...]
    answers: list[Answer | None]


class RecentAnswers:
    """The answers of the last `window_s` seconds, of at most `capacity` faces."""

    def __init__(self, window_s: float, capacity: int, dropped: Counter) -> None:
        self._window_s = window_s
        self._capacity = capacity
        self._dropped = dropped
        self._chunks: OrderedDict[ChunkKey, AnsweredChunk] = OrderedDict()
        self._faces = 0

    @property
    def faces(self) -> int:
        """How many are remembered, those of chunks with labels included."""
        return self._faces

    def keep(
        self,
        now_s: float,
        key: ChunkKey,
        bundle_id: str,
        group: str,
        expressions: tuple[str, ...],
        answers: Sequence[Answer],
    ) -> None:
        """Remember a chunk; when full, the oldest go, for people label what they have just seen."""
        self.expire(now_s)
        if key in self._chunks:  # recognised once more, for its session was forgotten
            self._forget(key)
        self._chunks[key] = AnsweredChunk(now_s, bundle_id, group, expressions, list(answers))
        self._faces += len(answers)
        while self._faces > self._capacity:
            self._dropped.inc(self._forget(next(iter(self._chunks))))

    def of(self, now_s: float, key: ChunkKey) -> AnsweredChunk | None:
        """The chunk, unless it is too old or was never here."""
        self.expire(now_s)
        return self._chunks.get(key)

    def expire(self, now_s: float) -> float:
        """Forget what is too old; return in how many seconds there may be more."""
        while self._chunks:
            key, oldest = next(iter(self._chunks.items()))
            left_s = oldest.answered_s + self._window_s - now_s
            if left_s > 0:
                return left_s
            self._forget(key)
        return self._window_s

    def _forget(self, key: ChunkKey) -> int:
        faces = len(self._chunks.pop(key).answers)
        self._faces -= faces
        return faces
