"""The ledger of credits: what is promised, and what may come back."""

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cloud_recognizer.credits import Account, CreditLedger
from mien.errors import OverloadedError

PATIENCE_S = 1.0


def ledger(
    places: int = 20, max_streams: int = 6, most: int = 8, call_places: int = 10
) -> CreditLedger:
    return CreditLedger(
        places=places,
        max_streams=max_streams,
        most=most,
        call_places=call_places,
        patience_s=PATIENCE_S,
    )


def one_round(accounts: list[Account]) -> list[int]:
    """Every stream sends all that it may, and all of it is settled; what each may send next."""
    for account in accounts:
        for _ in range(account.balance):
            account.spend()
    for account in accounts:
        account.settle(account.held)
    return [account.balance for account in accounts]


def test_few_streams_get_all_credits_and_many_get_an_even_share() -> None:
    books = ledger(places=20, max_streams=6, most=8)
    first = [books.open()]
    assert one_round(first) == [8]
    everyone = first + [books.open() for _ in range(5)]
    for _ in range(8):
        shares = one_round(everyone)
    assert shares == [3] * 6  # 14 shared places over six, and each its own


def test_a_stream_among_idle_ones_that_hold_everything_still_has_its_own_place() -> None:
    books = ledger(places=9, max_streams=2, most=8)
    books.open()  # takes all that is shared and sends nothing, ever
    late = books.open()
    for _ in range(20):
        assert one_round([late]) == [1]


def test_credits_come_back_one_more_than_came_in_at_most() -> None:
    books = ledger(places=20, max_streams=2, most=8)
    first, second = books.open(), books.open()
    for _ in range(3):
        books.note_chunk(received_s=10.0, answered_s=12.0)  # one cut: two were sent before it
    assert books.window == 4.0
    assert one_round([first, second]) == [4, 4]
    books.note_chunk(received_s=12.5, answered_s=15.0)
    assert one_round([first, second]) == [2, 2]
    growth = []
    for _ in range(40):
        for _ in range(first.balance + second.balance):
            books.note_chunk(received_s=20.0, answered_s=20.1)
        growth.append(one_round([first, second])[0])
    assert growth == sorted(growth)
    assert max(b - a for a, b in pairwise(growth)) == 1
    assert growth[-1] == 8


def test_the_window_never_falls_below_one_credit() -> None:
    books = ledger()
    account = books.open()
    for second in range(0, 100, 2):
        books.note_chunk(received_s=second + 0.1, answered_s=second + 2)
    assert books.window == 1.0
    for _ in range(3):
        assert one_round([account]) == [1]


def test_more_than_was_granted_is_refused() -> None:
    account = ledger(most=2).open()
    account.spend()
    account.spend()
    with pytest.raises(OverloadedError, match="without a credit"):
        account.spend()
    assert (account.balance, account.held) == (0, 2)


def test_fewer_places_than_streams_are_refused() -> None:
    with pytest.raises(ValueError, match="5 places"):
        ledger(places=5, max_streams=6)


class Ledger(RuleBasedStateMachine):
    """Streams and calls that come, send, are answered, die and come again, in any order.

    `devices` is what the other ends count for themselves, from the messages alone.
    """

    PLACES, STREAMS, MOST, CALLS = 23, 5, 8, 12

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ledger(self.PLACES, self.STREAMS, self.MOST, self.CALLS)
        self.devices: dict[Account, list[int]] = {}  # credits, unsettled chunks
        self.calls: list[int] = []
        self.now_s = 0.0

    def draw_device(self, data: st.DataObject) -> Account | None:
        accounts = list(self.devices)
        return accounts[data.draw(st.integers(0, len(accounts) - 1))] if accounts else None

    @rule()
    def open(self) -> None:
        if len(self.devices) < self.STREAMS:
            account = self.ledger.open()
            assert account.balance >= 1
            self.devices[account] = [account.balance, 0]
        else:
            with pytest.raises(OverloadedError):
                self.ledger.open()

    @rule(data=st.data(), chunks=st.integers(1, 10))
    def send(self, data: st.DataObject, chunks: int) -> None:
        account = self.draw_device(data)
        for _ in range(chunks if account else 0):
            assert account is not None
            if self.devices[account][0]:
                account.spend()
                self.devices[account][0] -= 1
                self.devices[account][1] += 1
            else:
                with pytest.raises(OverloadedError):
                    account.spend()

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        account = self.draw_device(data)
        if account and self.devices[account][1]:
            chunks = data.draw(st.integers(1, self.devices[account][1]))
            granted = account.settle(chunks)
            assert 0 <= granted <= chunks + 1
            self.devices[account][0] += granted
            self.devices[account][1] -= chunks

    @rule(data=st.data(), again=st.booleans())
    def die(self, data: st.DataObject, again: bool) -> None:
        account = self.draw_device(data)
        if account:
            account.close()
            account.close()  # superseded first, left afterwards
            del self.devices[account]
            if again:
                self.open()

    @rule(took_s=st.floats(0, 3))
    def answer(self, took_s: float) -> None:
        self.now_s += 1
        self.ledger.note_chunk(self.now_s - took_s, self.now_s)

    @rule(places=st.integers(0, 15))
    def call(self, places: int) -> None:
        if sum(self.calls) + places <= self.CALLS:
            self.ledger.reserve(places)
            self.calls.append(places)
        else:
            with pytest.raises(OverloadedError):
                self.ledger.reserve(places)

    @rule()
    def return_from_call(self) -> None:
        if self.calls:
            self.ledger.release(self.calls.pop())

    @invariant()
    def no_credit_is_lost_or_minted(self) -> None:
        for account, (credit, unsettled) in self.devices.items():
            assert (account.balance, account.held) == (credit, unsettled)
        assert self.ledger.outstanding == sum(credit for credit, _ in self.devices.values())

    @invariant()
    def what_is_promised_never_exceeds_what_there_is(self) -> None:
        unopened = self.STREAMS - len(self.devices)  # each may come and gets one
        assert sum(sum(counts) for counts in self.devices.values()) + unopened <= self.PLACES
        assert sum(self.calls) <= self.CALLS

    @invariant()
    def every_stream_has_a_credit_or_a_chunk_that_will_bring_one(self) -> None:
        for counts in self.devices.values():
            assert 1 <= sum(counts) <= self.MOST

    def teardown(self) -> None:
        """Whatever has happened: once it is quiet, every stream gets its whole share again."""
        if not self.devices:
            self.open()  # a window grows by what streams send
        for account in self.devices:
            if account.held:
                account.settle(account.held)
        share = 1 + (self.PLACES - self.STREAMS) // len(self.devices)
        for _ in range(60):
            for _ in range(self.ledger.outstanding):
                self.now_s += 1
                self.ledger.note_chunk(self.now_s, self.now_s)
            one_round(list(self.devices))
        for account in self.devices:
            assert account.balance == min(share, self.MOST)
            account.close()
        self.devices.clear()
        assert self.ledger.outstanding == 0
        # Nothing is left behind: a stream that is alone gets all it may have.
        assert self.ledger.open().balance == min(1 + self.PLACES - self.STREAMS, self.MOST)


TestLedger = Ledger.TestCase
TestLedger.settings = settings(stateful_step_count=60, deadline=None)
