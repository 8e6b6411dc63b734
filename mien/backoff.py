"""How long to wait before the next attempt: longer each time, and never in step with others."""

import random
from collections.abc import Callable


class Backoff:
    """Exponential backoff with full jitter.

    A fleet that lost its server comes back spread over time ("Exponential Backoff And Jitter",
    AWS Architecture Blog, 2015).
    """

    def __init__(
        self,
        first_s: float = 0.2,
        longest_s: float = 5.0,
        factor: float = 2.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first_s, self._longest_s, self._factor = first_s, longest_s, factor
        self._uniform = uniform
        self._bound_s = first_s

    def reset(self) -> None:
        """It worked: begin anew."""
        self._bound_s = self._first_s

    def next_s(self) -> float:
        """Seconds to wait now; at least a tenth of the bound, so that no attempt spins."""
        bound_s = self._bound_s
        self._bound_s = min(bound_s * self._factor, self._longest_s)
        return self._uniform(bound_s / 10, bound_s)

    def soon_s(self) -> float:
        """Seconds before something else is tried instead: spread like a first wait, never more."""
        return self._uniform(self._first_s / 10, self._first_s)
