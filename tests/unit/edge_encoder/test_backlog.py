"""Chunks are kept until they are settled, and no more of them than allowed."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_encoder.backlog import Backlog, MemoryOnly
from edge_encoder.chunker import Chunk
from mien.backoff import Backoff

CAPACITY, WINDOW = 5, 4


class TakesAll(MemoryOnly):
    """A disk that has room for everything."""

    def add(self, seq: int, chunk: Chunk) -> bool:
        return True


def chunk(number: int) -> Chunk:
    return Chunk(str(number).encode(), ())


def test_when_full_the_oldest_waiting_chunk_goes() -> None:
    backlog = Backlog(2, WINDOW)
    assert backlog.offer(chunk(1)) is None
    assert backlog.offer(chunk(2)) is None
    assert backlog.is_full
    assert backlog.offer(chunk(3)) == chunk(1)
    assert backlog.next_to_send() == (2, chunk(2))  # a chunk's seq is its own from the start


def test_lag_is_that_of_the_oldest_chunk_that_is_not_answered() -> None:
    now_s = 10.0
    backlog = Backlog(CAPACITY, WINDOW, clock=lambda: now_s)
    assert backlog.lag_s == 0
    backlog.offer(chunk(1))
    now_s = 12.0
    backlog.offer(chunk(2))
    seq, _ = backlog.next_to_send()
    now_s = 15.0
    assert backlog.lag_s == 5
    backlog.answer(seq)
    assert backlog.lag_s == 3


def test_what_waits_unsent_for_too_long_goes_but_for_the_newest() -> None:
    now_s = 10.0
    backlog = Backlog(CAPACITY, WINDOW, clock=lambda: now_s)
    backlog.offer(chunk(1))
    backlog.next_to_send()
    for number in range(2, 5):
        backlog.offer(chunk(number))
        now_s += 10.0
    assert backlog.shed(25.0) == [chunk(2)], "what was sent is not unsent"
    assert backlog.shed(5.0) == [chunk(3)]
    assert backlog.shed(0.0) == []
    assert backlog.next_to_send() == (4, chunk(4))


def test_what_the_keeper_has_is_not_dropped_for_its_age() -> None:
    now_s = 10.0
    keeping = Backlog(CAPACITY, WINDOW, TakesAll(), clock=lambda: now_s)
    for number in range(1, 4):
        keeping.offer(chunk(number))
    now_s = 100.0
    assert keeping.shed(5.0) == []
    assert keeping.waiting == 3


def test_what_was_sent_is_never_dropped() -> None:
    backlog = Backlog(1, WINDOW)
    backlog.offer(chunk(1))
    seq, _ = backlog.next_to_send()
    backlog.offer(chunk(2))
    assert backlog.offer(chunk(3)) == chunk(2)
    assert backlog.answer(seq) == chunk(1)


def test_a_new_stream_sends_again_what_is_not_acknowledged_and_in_order() -> None:
    backlog = Backlog(CAPACITY, WINDOW)
    for number in range(1, 5):
        backlog.offer(chunk(number))
    sent = [backlog.next_to_send() for _ in range(3)]
    backlog.answer(2)
    assert backlog.resume(acknowledged_seq=0) == []
    assert [backlog.next_to_send() for _ in range(3)] == [sent[0], sent[2], (4, chunk(4))]


def test_what_was_settled_without_an_answer_is_given_up_and_named() -> None:
    backlog = Backlog(CAPACITY, WINDOW)
    for number in range(1, 4):
        backlog.offer(chunk(number))
        backlog.next_to_send()
    backlog.acknowledge(1)
    assert backlog.resume(acknowledged_seq=2) == [chunk(1), chunk(2)]
    assert backlog.next_to_send() == (3, chunk(3))
    assert not backlog.can_send


def test_an_answer_that_comes_twice_is_news_once() -> None:
    backlog = Backlog(CAPACITY, WINDOW)
    backlog.offer(chunk(1))
    backlog.next_to_send()
    assert backlog.answer(1) == chunk(1)
    assert backlog.answer(1) is None
    assert backlog.answer(77) is None
    assert backlog.is_empty


def test_what_is_answered_before_it_is_sent_again_is_not_sent_again() -> None:
    backlog = Backlog(CAPACITY, WINDOW)
    for number in range(1, 3):
        backlog.offer(chunk(number))
        backlog.next_to_send()
    backlog.resume(acknowledged_seq=0)
    assert backlog.answer(1) == chunk(1)
    assert backlog.next_to_send() == (2, chunk(2))
    assert not backlog.can_send


def test_no_more_is_in_flight_than_the_window() -> None:
    backlog = Backlog(10, 2)
    for number in range(5):
        backlog.offer(chunk(number))
    backlog.next_to_send()
    backlog.next_to_send()
    assert not backlog.can_send
    backlog.answer(1)
    assert backlog.can_send


class Disk(MemoryOnly):
    """A keeper that takes chunks, or not, as it is told."""

    def __init__(self) -> None:
        self.takes = True
        self.kept: dict[int, Chunk] = {}
        self.held: set[int] = set()

    def add(self, seq: int, chunk: Chunk) -> bool:
        if self.takes:
            self.kept[seq] = chunk
        return self.takes

    def hold(self, seq: int) -> None:
        self.held.add(seq)

    def release(self, seq: int) -> None:
        self.held.discard(seq)

    def settle(self, seq: int) -> None:
        self.kept.pop(seq, None)

    def settle_until(self, seq: int) -> None:
        self.kept = {number: item for number, item in self.kept.items() if number > seq}


def test_when_what_is_on_disk_leaves_memory_nothing_overtakes_it() -> None:
    disk = Disk()
    backlog = Backlog(2, WINDOW, disk)
    backlog.offer(chunk(1))
    backlog.next_to_send()
    for number in (2, 3, 4):
        assert backlog.offer(chunk(number)) is None
    assert backlog.behind
    assert not backlog.can_send
    backlog.acknowledge(99)  # no server can mean what it was never sent
    assert list(disk.kept) == [2, 3, 4]


def test_what_no_disk_has_is_handed_on_when_the_epoch_is_left_and_in_order() -> None:
    disk = Disk()
    backlog = Backlog(3, WINDOW, disk)
    lost: list[Chunk] = []
    backlog.offer(chunk(1))
    backlog.next_to_send()
    disk.takes = False
    backlog.offer(chunk(2))
    backlog.next_to_send()
    for number in (3, 4):
        backlog.offer(chunk(number))
    assert backlog.leave(lost.append) == [chunk(3), chunk(4)]
    assert lost == [chunk(2)]  # sent, and nobody knows what became of it
    assert disk.held == set()
    assert list(disk.kept) == [1]


def test_what_a_disk_did_not_take_is_offered_to_it_again() -> None:
    disk = Disk()
    backlog = Backlog(5, WINDOW, disk)
    disk.takes = False
    backlog.offer(chunk(1))
    backlog.next_to_send()
    backlog.offer(chunk(2))
    disk.takes = True
    backlog.offer(chunk(3))
    assert disk.kept == {1: chunk(1), 2: chunk(2), 3: chunk(3)}
    assert list(disk.kept) == [1, 2, 3], "in their order"
    assert disk.held == {1}


def test_a_disk_that_did_not_take_a_chunk_is_not_given_a_later_one() -> None:
    disk = Disk()
    backlog = Backlog(5, WINDOW, disk)
    disk.takes = False
    backlog.offer(chunk(1))
    disk.add = lambda seq, _: seq != 1  # type: ignore[method-assign]  # room for a smaller one
    backlog.offer(chunk(2))
    assert [item.kept for item in backlog._waiting] == [False, False]


class BacklogMachine(RuleBasedStateMachine):
    """Any order of events: every chunk is answered, dropped or given up, and exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(CAPACITY, WINDOW)
        self.offered = 0
        self.gone: list[bytes] = []
        self.sent_now: list[int] = []  # on the current stream

    @rule()
    def offer(self) -> None:
        self.offered += 1
        dropped = self.backlog.offer(chunk(self.offered))
        self.gone += [dropped.payload] if dropped else []

    @precondition(lambda self: self.backlog.can_send)
    @rule()
    def send(self) -> None:
        seq, sent = self.backlog.next_to_send()
        assert sent.payload == str(seq).encode()
        assert not self.sent_now or seq > self.sent_now[-1]
        self.sent_now.append(seq)

    @rule(seq=st.integers(0, 30))
    def answer(self, seq: int) -> None:
        answered = self.backlog.answer(seq)
        self.gone += [answered.payload] if answered else []

    @rule(seq=st.integers(0, 30))
    def acknowledge(self, seq: int) -> None:
        self.backlog.acknowledge(seq)

    @rule(seq=st.integers(0, 30))
    def resume(self, seq: int) -> None:
        self.gone += [item.payload for item in self.backlog.resume(seq)]
        self.sent_now = []

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert len(self.gone) == len(set(self.gone))
        assert len(self.gone) + self.backlog.waiting + self.backlog.in_flight == self.offered

    @invariant()
    def bounds_hold(self) -> None:
        assert self.backlog.waiting <= CAPACITY
        assert self.backlog.in_flight <= WINDOW


TestBacklogMachine = BacklogMachine.TestCase


def test_waits_grow_to_a_bound_and_start_anew_after_a_success() -> None:
    backoff = Backoff(first_s=0.2, longest_s=1.0, factor=2.0, uniform=lambda low, high: high)
    assert [backoff.next_s() for _ in range(5)] == [0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next_s() == 0.2


def test_waits_are_spread_and_never_nothing() -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    backoff = Backoff(first_s=0.2, longest_s=1.0, uniform=uniform)
    assert backoff.next_s() > 0
    assert asked == [(0.02, 0.2)]
