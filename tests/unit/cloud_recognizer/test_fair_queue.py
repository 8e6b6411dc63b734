"""Whose turn it is, and what may wait."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cloud_recognizer.fair_queue import FairQueue, Flow
from mien.errors import OverloadedError

MAX_FACES = 64
QUANTUM = 8


@dataclass(eq=False)
class Item:
    faces: int
    size_bytes: int
    flow: Flow
    late: bool = False


def is_late(item: Item) -> bool:
    return item.late


def flow(name: str, max_chunks: int = 1000, max_bytes: int = 1000, rank: int = 0) -> Flow:
    return Flow(name, max_chunks, max_bytes, rank)


def queue(**bounds: int) -> FairQueue[Item]:
    return FairQueue(**({"max_chunks": 10_000, "max_bytes": 10_000} | bounds))


def batches(waiting: FairQueue[Item], max_faces: int) -> list[list[Item]]:
    taken = []
    while waiting.chunks:
        batch, late = waiting.take(max_faces, is_late)
        assert not late
        taken.append(batch)
    return taken


def test_of_a_flood_and_a_trickle_the_trickle_waits_for_one_turn_of_the_flood() -> None:
    waiting = queue()
    for _ in range(100):
        waiting.offer(Item(8, 1, flow("flood")))
    waiting.take(16, is_late)  # a batch of the flood alone is computed
    trickle = [Item(4, 1, flow(name)) for name in ("a", "b", "c")]
    for item in trickle:
        waiting.offer(item)
    first, _ = waiting.take(16, is_late)
    second, _ = waiting.take(16, is_late)
    assert [item for item in first + second if item in trickle] == trickle


def test_a_sender_of_long_chunks_gets_as_many_faces_as_one_of_short_ones() -> None:
    waiting = queue()
    for _ in range(20):
        waiting.offer(Item(64, 1, flow("long")))
    for _ in range(640):
        waiting.offer(Item(1, 1, flow("short")))
    faces: Counter[object] = Counter()
    for batch in batches(waiting, 128)[:8]:
        for item in batch:
            faces[item.flow.name] += item.faces
    assert abs(faces["long"] - faces["short"]) <= QUANTUM + MAX_FACES


def test_each_flow_is_first_in_first_out_and_nothing_is_lost() -> None:
    waiting = queue()
    sent = [Item(1 + number % 5, 1, flow("ab"[number % 2])) for number in range(50)]
    for item in sent:
        waiting.offer(item)
    taken = [item for batch in batches(waiting, 7) for item in batch]
    for name in "ab":
        assert [item for item in taken if item.flow.name == name] == [
            item for item in sent if item.flow.name == name
        ]


def test_many_streams_of_one_sender_take_one_turn_the_highest_rank_first() -> None:
    waiting = queue()
    for rank in range(100):
        for _ in range(4):
            waiting.offer(Item(8, 1, flow("many", 4, rank=rank)))
    others = [Item(8, 1, flow(name)) for name in ("a", "b")]
    for item in others:
        waiting.offer(item)
    batch, _ = waiting.take(24, is_late)
    assert [item.flow.name for item in batch] == ["many", "a", "b"]
    assert [item.flow.rank for item in waiting.take(48, is_late)[0]] == [99, 99, 99, 98, 98, 98]


def test_what_waits_of_one_stream_takes_no_room_of_another_of_its_sender() -> None:
    waiting = queue()
    for _ in range(2):
        waiting.offer(Item(8, 1, flow("many", 2, rank=1)))
    with pytest.raises(OverloadedError, match="of this sender"):
        waiting.offer(Item(8, 1, flow("many", 2, rank=1)))
    waiting.offer(Item(8, 1, flow("many", 2, rank=2)))


def test_what_is_late_is_set_apart_and_costs_its_flow_no_turn() -> None:
    waiting = queue()
    late = [Item(64, 1, flow("a"), late=True) for _ in range(5)]
    timely = [Item(8, 1, flow("a")), Item(8, 1, flow("b"))]
    for item in (*late, *timely):
        waiting.offer(item)
    assert waiting.take(16, is_late) == (timely, late)
    assert (waiting.chunks, waiting.faces, waiting.size_bytes) == (0, 0, 0)


@pytest.mark.parametrize(
    ("bounds", "sender", "match"),
    [
        ({"max_chunks": 2}, flow("a"), "2 chunks of 20 bytes wait"),
        ({"max_bytes": 29}, flow("a"), "2 chunks of 20 bytes wait"),
        ({}, flow("a", max_chunks=2), "of this sender"),
        ({}, flow("a", max_bytes=29), "of this sender"),
    ],
)
def test_beyond_each_bound_the_new_one_is_refused(
    bounds: dict[str, int], sender: Flow, match: str
) -> None:
    waiting = queue(**bounds)
    for _ in range(2):
        waiting.offer(Item(1, 10, sender))
    with pytest.raises(OverloadedError, match=match):
        waiting.offer(Item(1, 10, sender))
    assert (waiting.chunks, waiting.size_bytes) == (2, 20)
    if not bounds:
        waiting.offer(Item(1, 10, flow("another")))


@given(
    st.lists(st.lists(st.integers(1, MAX_FACES), min_size=60, max_size=60), min_size=2, max_size=5),
    st.integers(1, 300),
)
def test_no_flow_with_chunks_waiting_gets_ahead_of_another(
    senders: list[list[int]], max_faces: int
) -> None:
    waiting = queue()
    for number, faces in enumerate(senders):
        for count in faces:
            waiting.offer(Item(count, 1, flow(str(number))))
    served: Counter[object] = Counter()
    left = Counter({str(number): len(faces) for number, faces in enumerate(senders)})
    while all(left[name] for name in left):
        batch, _ = waiting.take(max_faces, is_late)
        assert batch
        assert sum(item.faces for item in batch) <= max_faces or len(batch) == 1
        for item in batch:
            served[item.flow.name] += item.faces
            left[item.flow.name] -= 1
            if all(left.values()):
                counts = [served[name] for name in left]
                assert max(counts) - min(counts) <= QUANTUM + 2 * MAX_FACES


class Waiting(RuleBasedStateMachine):
    """Anything may be offered, withdrawn and taken: the counts stay those of what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue(max_chunks=12, max_bytes=60)
        self.inside: list[Item] = []

    @rule(
        faces=st.integers(1, MAX_FACES),
        size_bytes=st.integers(0, 12),
        name=st.sampled_from("abc"),
        rank=st.integers(0, 2),
        late=st.booleans(),
    )
    def offer(self, faces: int, size_bytes: int, name: str, rank: int, late: bool) -> None:
        item = Item(faces, size_bytes, flow(name, 5, 30, rank), late)
        own = [other for other in self.inside if other.flow == item.flow]
        fits = (
            len(self.inside) < 12
            and sum(other.size_bytes for other in self.inside) + size_bytes <= 60
            and len(own) < 5
            and sum(other.size_bytes for other in own) + size_bytes <= 30
        )
        if fits:
            self.queue.offer(item)
            self.inside.append(item)
        else:
            with pytest.raises(OverloadedError):
                self.queue.offer(item)

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        if self.inside:
            item = data.draw(st.sampled_from(self.inside))
            self.queue.withdraw(item)
            self.inside.remove(item)

    @rule(max_faces=st.integers(1, 100))
    def take(self, max_faces: int) -> None:
        timely = any(not item.late for item in self.inside)
        batch, late = self.queue.take(max_faces, is_late)
        assert bool(batch) == timely
        for item in (*batch, *late):
            assert item.late == (item in late)
            self.inside.remove(item)

    @invariant()
    def counts_are_true(self) -> None:
        assert self.queue.chunks == len(self.inside)
        assert self.queue.faces == sum(item.faces for item in self.inside)
        assert self.queue.size_bytes == sum(item.size_bytes for item in self.inside)
        heads = {item.flow: item for item in self.queue.heads()}
        assert heads.keys() == {item.flow for item in self.inside}
        for stream in heads:
            assert heads[stream] is next(i for i in self.inside if i.flow == stream)


TestWaiting = Waiting.TestCase
