"""How many calls of one kind may be open: all together, and of one caller."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from cloud_recognizer.metrics import SHARE, Metrics
from mien.errors import OverloadedError, ShareTakenError


class Places:
    """At most `capacity` calls at a time, `each` of them of one caller.

    bound: what the metric calls it when there is no place. what: the calls, for people.
    """

    def __init__(
        self, metrics: Metrics, bound: str, what: str, *, capacity: int, each: int
    ) -> None:
        self._metrics = metrics
        self._bound = bound
        self._what = what
        self._capacity = capacity
        self._each = each
        self._taken = 0
        self._of: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Calls that hold a place."""
        return self._taken

    @contextmanager
    def one(self, caller: str | None) -> Iterator[None]:
        """Hold a place while the context lasts. caller: None where nobody is known, all are.

        Raises ShareTakenError and OverloadedError.
        """
        if caller is not None and self._of[caller] >= self._each:
            self._metrics.turned_away.labels(SHARE).inc()
            raise ShareTakenError(f"this caller has {self._each} {self._what} already")
        if self._taken >= self._capacity:
            self._metrics.turned_away.labels(self._bound).inc()
            raise OverloadedError(f"there are {self._taken} {self._what} already")
        self._taken += 1
        self._of.update(() if caller is None else (caller,))
        try:
            yield
        finally:
            self._taken -= 1
            if caller is not None:
                self._of[caller] -= 1
                if not self._of[caller]:
                    del self._of[caller]
