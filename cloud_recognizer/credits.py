"""How many chunks each stream may send: what is promised together never exceeds what there is.

    grant ─▶ balance (the device's) ─ spend ─▶ held (received, unsettled) ─ settle ─▶ grant

A credit is a promise that cannot be taken back, so it is counted from when it is given until the
chunk that came with it is settled. Every stream that may be open has one place that is its own;
so none starves, whatever the others hold. What is beyond is shared, and a stream's part of it
shrinks by giving less back than came in:

- to an even share, when more streams are open;
- by halves, while chunks take longer than `patience_s`; by one credit for each round in which
  they do not, it grows again (additive increase, multiplicative decrease: Chiu and Jain, 1989).
"""

from mien.errors import OverloadedError


class Account:
    """One stream's part of the ledger. `balance` and `held` together are at least 1 while open."""

    def __init__(self, ledger: "CreditLedger") -> None:
        self._ledger = ledger
        self.balance = 0
        self.held = 0
        self.open = True

    @property
    def promised(self) -> int:
        """Places that this stream takes up."""
        return self.balance + self.held

    def spend(self) -> None:
        """A chunk has come. Raises OverloadedError when there was no credit for it."""
        if self.balance == 0:
            raise OverloadedError(
                "a chunk came without a credit: wait for Credits before sending more"
            )
        self.balance -= 1
        self.held += 1

    def settle(self, chunks: int) -> int:
        """So many chunks are settled; returns the credits to give, none perhaps."""
        return self._ledger.settle(self, chunks)

    def close(self) -> None:
        """The stream is over: its places are free. A second time this does nothing."""
        self._ledger.close(self)


class CreditLedger:
    """The places for chunks of at most `max_streams` streams.

    places: for streams together, at least one for each. most: credits of one stream.
    call_places: for unary calls together, apart from the streams', for idle streams keep theirs.
    """

    def __init__(
        self, *, places: int, max_streams: int, most: int, call_places: int, patience_s: float
    ) -> None:
        if places < max_streams:
            raise ValueError(f"{places} places are too few for {max_streams} streams")
        self._max_streams = max_streams
        self._shared = places - max_streams
        self._shared_taken = 0
        self._most = most
        self._call_places = call_places
        self._calls_taken = 0
        self._patience_s = patience_s
        self._accounts: set[Account] = set()
        self._window = float(most)
        self._shrunk_s = float("-inf")

    @property
    def outstanding(self) -> int:
        """Credits that devices hold."""
        return sum(account.balance for account in self._accounts)

    @property
    def window(self) -> float:
        """Credits that a stream may have as far as the time that chunks take is concerned."""
        return self._window

    def open(self) -> Account:
        """An account with its first credits, at least one. Raises OverloadedError."""
        if len(self._accounts) >= self._max_streams:
            raise OverloadedError(f"there is no place for more than {self._max_streams} streams")
        account = Account(self)
        self._accounts.add(account)
        account.balance = 1  # its own place
        self._grow(account, self._most)
        return account

    def settle(self, account: Account, chunks: int) -> int:
        """As Account.settle; a stream gets at most one credit more than came back."""
        before = account.balance
        self._shared_taken -= account.promised - 1
        account.held -= chunks
        if account.promised == 0:
            account.balance = 1  # its own place
        self._shared_taken += account.promised - 1
        self._grow(account, chunks + 1 - (account.balance - before))
        return account.balance - before

    def _grow(self, account: Account, at_most: int) -> None:
        share = 1 + self._shared // len(self._accounts)
        wanted = min(share, int(self._window)) - account.promised
        more = max(min(wanted, at_most, self._shared - self._shared_taken), 0)
        account.balance += more
        self._shared_taken += more

    def close(self, account: Account) -> None:
        """As Account.close."""
        if account.open:
            account.open = False
            self._accounts.discard(account)
            self._shared_taken -= account.promised - 1

    def note_chunk(self, received_s: float, answered_s: float) -> None:
        """A chunk of a stream was answered: adapt the window to how long that took.

        A chunk that was received before the window shrank says nothing about the window since.
        """
        if answered_s - received_s <= self._patience_s:
            chunks_a_round = self._window * max(len(self._accounts), 1)
            self._window = min(self._window + 1 / chunks_a_round, self._most)
        elif received_s > self._shrunk_s:
            self._window = max(self._window / 2, 1.0)
            self._shrunk_s = answered_s

    def reserve(self, places: int) -> None:
        """Take places for a unary call. Raises OverloadedError when there is no room."""
        if self._calls_taken + places > self._call_places:
            raise OverloadedError(
                f"{self._calls_taken} chunks of calls are being recognised already, "
                f"{places} more do not fit into {self._call_places}"
            )
        self._calls_taken += places

    def release(self, places: int) -> None:
        """Give a call's places back."""
        self._calls_taken -= places
