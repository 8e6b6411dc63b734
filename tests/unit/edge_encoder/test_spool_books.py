"""Any order of offers, sends, acknowledgements, outages, crashes and full disks: the books balance.

The server is a model of the contract: per (device, epoch) it takes seqs that grow, remembers up to
which all is settled, and tells it in its Welcome.
"""

import shutil
import tempfile
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_encoder.backlog import Backlog
from edge_encoder.chunker import Chunk
from edge_encoder.epochs import Epochs
from edge_encoder.metrics import (
    SPOOL_AGE,
    SPOOL_FULL,
    UNANSWERED,
    UNCONFIRMED,
    UPLINK_FULL,
    Metrics,
)
from edge_encoder.spool import ledger
from edge_encoder.spool.command import contents
from edge_encoder.spool.lane import Lane
from edge_encoder.spool.ledger import Key
from edge_encoder.spool.store import key_of
from mien.messages.upward import Hello
from tests.support.spooling import ROW, Clock, epoch, numbered, spool_in

CAPACITY = 4
MAX_CHUNKS = 9
MAX_AGE_S = 60.0
MEMORY = Path("/dev/shm")  # noqa: S108


class Server:
    """Recognises each chunk of an epoch once, in order, and never forgets."""

    def __init__(self) -> None:
        self.settled: dict[Key, int] = defaultdict(int)
        self.recognised: Counter[bytes] = Counter()
        self.order: dict[Key, list[int]] = defaultdict(list)


class Stream:
    """One call: what the device sends is settled later, and answered later still, or never."""

    def __init__(self, server: Server, hello: Hello, unsettled: Backlog | Lane) -> None:
        self.server = server
        self.key = key_of(hello)
        self.unsettled = unsettled
        self.received: list[tuple[int, Chunk]] = []
        self.answers: list[int] = []
        self.highest = server.settled[self.key]
        self.lost = unsettled.resume(self.highest)

    def send(self) -> None:
        seq, chunk = self.unsettled.next_to_send()
        if seq <= self.highest:
            assert seq <= self.server.settled[self.key] or seq in dict(self.received)
            return  # a duplicate
        self.highest = seq
        self.received.append((seq, chunk))

    def settle(self) -> None:
        seq, chunk = self.received.pop(0)
        self.server.settled[self.key] = seq
        self.server.recognised[chunk.payload] += 1
        self.server.order[self.key].append(int(chunk.payload))
        self.answers.append(seq)

    def answer(self, acknowledge: bool) -> None:
        seq = self.answers.pop(0)
        self.unsettled.answer(seq)
        if acknowledge:
            self.unsettled.acknowledge(seq)

    def run(self) -> None:
        """Everything that can be sent is, and is answered."""
        while True:
            if isinstance(self.unsettled, Lane):
                self.unsettled.allow()
            if self.unsettled.can_send:
                self.send()
            elif self.received:
                self.settle()
            elif self.answers:
                self.answer(acknowledge=True)
            else:
                return


class Books(RuleBasedStateMachine):
    """A device, its spool and a server; `run_down` is what a long quiet time would do."""

    def __init__(self) -> None:
        super().__init__()
        # In memory where there is such a folder: the disk's own speed is not what is tested.
        self.folder = Path(
            tempfile.mkdtemp(prefix="spool-", dir=MEMORY if MEMORY.is_dir() else None)
        )
        self.clock = Clock()
        self.server = Server()
        self.offered = 0
        self.lost_in_crash = 0
        self.unheard = 0  # recognised, but the device could not note it: it may be dropped yet
        self.full = False
        self.past_drops: Counter[str] = Counter()
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.metrics = Metrics()
        self.stack = ExitStack()
        limits = {"max_bytes": MAX_CHUNKS * ROW, "max_age_s": MAX_AGE_S}
        self.spool = self.stack.enter_context(
            spool_in(self.folder, self.metrics, self.clock, **limits)
        )
        hello = replace(epoch(1), epoch=self.spool.next_epoch(self.starts))
        self.epochs = Epochs(hello, CAPACITY, self.metrics, self.spool)
        self.live: Stream | None = None
        self.late: Stream | None = None

    def teardown(self) -> None:
        try:
            self.run_down()
        finally:
            self.stack.close()
            shutil.rmtree(self.folder)

    @rule(many=st.integers(1, 3))
    def offer(self, many: int) -> None:
        for _ in range(many):
            self.offered += 1
            self.epochs.offer(numbered(self.offered))

    @rule(many=st.integers(1, 3))
    def send(self, many: int) -> None:
        if self.live is not None and self.epochs.backlog.behind:
            self.break_line()  # as FaceStream does
        if self.live is None:
            self.connect()
        for _ in range(many):
            if self.live.unsettled.can_send:
                self.live.send()

    def connect(self) -> None:
        hello, backlog = self.epochs.next()
        self.live = Stream(self.server, hello, backlog)
        self.epochs.welcomed(hello, backlog)
        self.epochs.lose_unanswered(self.live.lost)

    @precondition(lambda self: self.live is not None)
    @rule(many=st.integers(1, 3))
    def send_late(self, many: int) -> None:
        hello = self.spool.oldest_epoch({self.epochs.key})
        if self.late is None and hello is not None:
            lane = Lane(self.spool, hello)
            self.late = Stream(self.server, hello, lane)
            self.metrics.drop(UNANSWERED, lane.unanswered_faces)
        for _ in range(many if self.late is not None else 0):
            self.late.unsettled.allow()
            if self.late.unsettled.can_send:
                self.late.send()

    @precondition(lambda self: self.live is not None)
    @rule(late=st.booleans(), settled=st.integers(0, 3), answered=st.integers(0, 3))
    def answer(self, late: bool, settled: int, answered: int) -> None:
        """The server settles some, and some of its answers, not all perhaps, come through."""
        stream = self.late if late else self.live
        if stream is None:
            return
        for _ in range(min(settled, len(stream.received))):
            stream.settle()
        for index in range(min(answered, len(stream.answers))):
            self.unheard += self.full
            stream.answer(acknowledge=index == 0)

    # One rule for all of these: as rules of their own they would crowd out the work.
    @rule(what=st.sampled_from(["crash", "break_line", "break_late", "full", "room", "room"]))
    def trouble(self, what: str) -> None:
        if what == "crash":
            self.crash()
        elif what == "break_line" and self.live is not None:
            self.break_line()
        elif what == "break_late" and self.late is not None:
            self.break_late()
        elif what in ("full", "room"):
            self.fill_disk(full=what == "full")

    def break_late(self) -> None:
        self.unheard += len(self.late.answers)
        self.late.unsettled.release()
        self.late = None

    def break_line(self) -> None:
        """Both streams go; what was settled and not answered is settled all the same."""
        if self.late is not None:
            self.break_late()
        self.unheard += len(self.live.answers)
        self.live = None

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def wait(self, seconds: int) -> None:
        self.clock.now_ms += 1000 * seconds
        self.spool.apply_rules()
        self.epochs.backlog.forget_dropped()

    def fill_disk(self, full: bool) -> None:
        """No page more than there are, as SQLite itself sees a full disk."""
        self.full = full
        pages = 1 if full else 1 << 30
        self.spool._database.execute(f"PRAGMA max_page_count={pages}").fetchall()

    def crash(self) -> None:
        """kill -9: what is in memory alone is lost."""
        waiting = [*self.epochs.backlog._waiting, *self.epochs.backlog._sent.values()]
        if self.live is not None:
            self.break_line()
        settled = self.server.settled[self.epochs.key]
        self.lost_in_crash += sum(not item.kept and item.seq > settled for item in waiting)
        self.stack.close()
        self.past_drops += self.metrics.drops
        self.start()

    def run_down(self) -> None:
        """Let there be room and a line, until all is sent; then every chunk is accounted for."""
        self.fill_disk(full=False)
        while True:
            if self.live is not None:
                self.live.run()
                self.break_line()
            if self.epochs.backlog.is_empty:
                break
            self.connect()
        self.live = None
        while (hello := self.spool.oldest_epoch({self.epochs.key})) is not None:
            lane = Lane(self.spool, hello)
            Stream(self.server, hello, lane).run()
            assert lane.is_empty
            lane.release()
        self.connect()  # its Welcome settles what was not acknowledged yet
        assert self.spool.total.chunks == 0
        drops = self.past_drops + self.metrics.drops
        dropped = sum(drops[reason] for reason in (SPOOL_FULL, SPOOL_AGE, UPLINK_FULL))
        missing = self.offered - len(self.server.recognised)
        assert missing <= dropped + drops[UNCONFIRMED] + self.lost_in_crash
        assert dropped + self.lost_in_crash - missing <= self.unheard

    @invariant()
    def nothing_is_recognised_twice(self) -> None:
        assert not self.server.recognised or max(self.server.recognised.values()) == 1

    @invariant()
    def order_holds_within_an_epoch(self) -> None:
        for numbers in self.server.order.values():
            assert numbers == sorted(numbers)

    @invariant()
    def the_books_on_disk_balance(self) -> None:
        found = contents(self.folder, self.clock)
        booked = {name: book["faces"] for name, book in found["books"].items()}
        accepted = booked.pop("accepted", 0)
        assert accepted == sum(booked.values()) + found["faces"]
        assert found["faces"] == self.spool.total.faces
        drops = self.past_drops + self.metrics.drops
        assert booked.get(SPOOL_FULL, 0) == drops[SPOOL_FULL]
        assert booked.get(SPOOL_AGE, 0) == drops[SPOOL_AGE]

    @invariant()
    def what_is_in_flight_is_on_disk_whatever_the_rules_say(self) -> None:
        sent = self.epochs.backlog._sent.values()
        keys = {(self.epochs.key, item.seq) for item in sent if item.kept and not item.acknowledged}
        if self.late is not None:
            keys |= {(self.late.key, seq) for seq, _ in self.late.received}
        assert keys <= {(row.key, row.seq) for row in ledger.rows(self.spool._database)}

    @invariant()
    def bounds_hold(self) -> None:
        assert self.epochs.backlog.waiting <= CAPACITY
        assert self.spool.total.size <= MAX_CHUNKS * ROW


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=150, stateful_step_count=40)


@pytest.mark.parametrize("line_breaks", [False, True])
def test_room_for_an_older_chunk_is_not_made_of_a_newer_one(line_breaks: bool) -> None:
    """The spool is full of chunks in flight, so one waits in memory alone; then another is
    offered when there is room for one."""
    books = Books()
    books.offer(5)
    books.send(1)  # memory was full: a new epoch
    books.offer(4)
    books.send(3)
    books.offer(3)
    books.send(2)
    books.send(2)
    books.send_late(1)
    books.offer(1)
    books.answer(late=False, settled=1, answered=1)
    books.offer(1)
    if line_breaks:
        books.break_line()
        books.offer(1)
    books.the_books_on_disk_balance()
    books.teardown()
