"""What waits for a batch: a line for each sender, and whose turn it is.

Deficit round robin by faces (Shreedhar and Varghese, SIGCOMM 1995), for decoding and classifying
cost as many times a face. Every sender's turn adds `quantum` faces to what it may take; a chunk
leaves when that covers it, and a sender whose line is empty keeps nothing. So of senders that have
chunks waiting none gets ahead of another by more than a quantum and a chunk, however much it sends.
What a sender has in several streams takes its one turn, the stream of the highest rank first.

No asyncio here: `batcher` drives it.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from mien.errors import OverloadedError

# As many as a device's chunk has by default: a turn is a chunk of the usual size.
QUANTUM_FACES: Final = 8


@dataclass(frozen=True, slots=True)
class Flow:
    """One stream of a sender, and how much of it may wait: chunks, and bytes of them together.

    name: the sender's, whose turn it is. rank: of its streams, the highest goes first.
    """

    name: Hashable
    max_chunks: int
    max_bytes: int
    rank: int = 0


class Queued(Protocol):
    """Something that waits, told from every other by identity."""

    faces: int
    """What it costs, at least 1."""
    size_bytes: int
    flow: Flow


Item = TypeVar("Item", bound=Queued)


@dataclass(slots=True)
class _Lane(Generic[Item]):
    # A dict for its order, and so that what is withdrawn leaves at once.
    items: dict[Item, None] = field(default_factory=dict)
    size_bytes: int = 0


@dataclass(slots=True)
class _Line(Generic[Item]):
    # By rank; none is empty.
    lanes: dict[int, _Lane[Item]] = field(default_factory=dict)
    deficit: int = 0
    in_turn: bool = False


class FairQueue(Generic[Item]):
    """At most `max_chunks` items of `max_bytes` together, and of each stream what it may have."""

    def __init__(
        self, *, max_chunks: int, max_bytes: int, quantum_faces: int = QUANTUM_FACES
    ) -> None:
        self._max_chunks = max_chunks
        self._max_bytes = max_bytes
        self._quantum = quantum_faces
        # In the order of their turns; none is empty.
        self._lines: OrderedDict[Hashable, _Line[Item]] = OrderedDict()
        self.chunks = 0
        self.faces = 0
        self.size_bytes = 0

    def offer(self, item: Item) -> None:
        """Queue an item; beyond a bound the new one is refused, for its sender still has it.

        Raises OverloadedError.
        """
        flow, line = item.flow, self._lines.get(item.flow.name)
        lane = line.lanes.get(flow.rank) if line else None
        chunks, size_bytes = (len(lane.items), lane.size_bytes) if lane else (0, 0)
        if self.chunks >= self._max_chunks or self.size_bytes + item.size_bytes > self._max_bytes:
            raise OverloadedError(
                f"{self.chunks} chunks of {self.size_bytes} bytes wait already; "
                "send again in a moment"
            )
        if chunks >= flow.max_chunks or size_bytes + item.size_bytes > flow.max_bytes:
            raise OverloadedError(
                f"{chunks} chunks of {size_bytes} bytes of this sender wait already; "
                "send again when they are answered"
            )
        if line is None:
            line = self._lines[flow.name] = _Line()
        if lane is None:
            lane = line.lanes[flow.rank] = _Lane()
        lane.items[item] = None
        self._count(lane, item, +1)

    def withdraw(self, item: Item) -> None:
        """Take out an item that waits."""
        line = self._lines[item.flow.name]
        self._remove(line, item)
        if not line.lanes:
            del self._lines[item.flow.name]

    def heads(self) -> Iterator[Item]:
        """The oldest item of each stream."""
        lanes = (lane for line in self._lines.values() for lane in line.lanes.values())
        return (next(iter(lane.items)) for lane in lanes)

    def take(
        self, max_faces: int, is_late: Callable[[Item], bool]
    ) -> tuple[list[Item], list[Item]]:
        """Take a batch of at most `max_faces`, and what was met that is too late to be in one.

        An item with more faces than that is a batch of its own. What is late costs its flow
        nothing. The turn that a full batch ends goes on in the next one.
        """
        batch: list[Item] = []
        late: list[Item] = []
        room = max_faces
        while self._lines:
            name, line = next(iter(self._lines.items()))
            if not line.in_turn:
                line.in_turn = True
                line.deficit += self._quantum
            while line.lanes:
                item = next(iter(line.lanes[max(line.lanes)].items))
                if is_late(item):
                    late.append(item)
                elif item.faces > line.deficit:
                    break
                elif batch and item.faces > room:
                    return batch, late
                else:
                    batch.append(item)
                    line.deficit -= item.faces
                    room -= item.faces
                self._remove(line, item)
            line.in_turn = False
            if line.lanes:
                self._lines.move_to_end(name)
            else:
                del self._lines[name]
        return batch, late

    def _remove(self, line: _Line[Item], item: Item) -> None:
        lane = line.lanes[item.flow.rank]
        del lane.items[item]
        if not lane.items:
            del line.lanes[item.flow.rank]
        self._count(lane, item, -1)

    def _count(self, lane: _Lane[Item], item: Item, sign: int) -> None:
        lane.size_bytes += sign * item.size_bytes
        self.chunks += sign
        self.faces += sign * item.faces
        self.size_bytes += sign * item.size_bytes
