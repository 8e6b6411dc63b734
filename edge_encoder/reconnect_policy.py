"""After a stream has ended: which server to dial next, after what wait, and when to give up.

failed, asked to wait ─▶ next ─▶ the same server, the next of the walk, or the uplink's end
welcomed, answered    ─▶ patience and waits begin anew
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from edge_encoder.metrics import BEHIND, ROTATED, UNKNOWN_BUNDLE
from edge_encoder.servers import Servers, Target
from mien.backoff import Backoff
from mien.errors import UnavailableError, UnknownBundleError

_log = logging.getLogger(__name__)

# A recognizer that is back has its devices back within two seconds. A few hundred of them, trying
# that often for as long as it is away, are little to it; and no two in step.
LONGEST_WAIT_S: Final = 1.5


class ReconnectPolicy:
    """Walks through the servers, and gives up after `give_up_s` without one that answers."""

    def __init__(
        self,
        servers: Servers,
        give_up_s: float,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = servers
        self._walk = servers.walk()
        self._give_up_s = give_up_s
        self._backoff = backoff or Backoff(longest_s=LONGEST_WAIT_S)
        self._clock = clock
        self._not_before_s: dict[Target, float] = {}  # who has asked to be left alone until then
        self._no_progress_since_s: float | None = clock()
        self._last_problem = "no attempt was made yet"
        self._reasons: set[str] = set()  # why attempts failed since the last success

    def begin(self) -> None:
        """Patience counts from now."""
        self._no_progress_since_s = self._clock()

    async def first(self) -> Target:
        """What to dial at the start."""
        target, _ = await self._walk.advance()
        return target

    async def next(self, target: Target, reason: str) -> tuple[Target, float]:
        """What to dial after a stream to `target` has ended, and in how many seconds.

        reason: one of `metrics.RECONNECTS`. Raises what the uplink gives up for: UnavailableError,
        and UnknownBundleError where that is all that servers say.
        """
        if self._no_progress_since_s is None:
            self._no_progress_since_s = self._clock()
        self._reasons.add(reason)
        # Neither is the server's fault: it knows the most of what was sent.
        stays = reason in (BEHIND, ROTATED)
        following, round_is_over = (target, True) if stays else await self._walk.advance()
        if round_is_over:
            self._check_patience()
            self._reasons.clear()
        wait_s = self._wait_s(following, round_is_over)
        _log.info("%s; next attempt in %.2f s at %s", self._last_problem, wait_s, following)
        return following, wait_s

    def _wait_s(self, following: Target, round_is_over: bool) -> float:
        # Another server needs no long wait, but a spread one: the others of this one come, too.
        wait_s = self._backoff.next_s() if round_is_over else self._backoff.soon_s()
        asked_s = self._not_before_s.get(following, 0.0) - asyncio.get_running_loop().time()
        if asked_s > 0:
            wait_s = max(wait_s, asked_s + self._backoff.soon_s())  # others were asked to, as well
        return wait_s

    def _check_patience(self) -> None:
        """Give up where it is time to, but never before each server had its turn."""
        if self._reasons == {UNKNOWN_BUNDLE}:
            raise UnknownBundleError(self._last_problem)
        now_s = self._clock()
        gone_s = now_s - (now_s if (since := self._no_progress_since_s) is None else since)
        if gone_s >= self._give_up_s:
            raise UnavailableError(
                f"no recognizer at {self._servers} for {gone_s:.0f} s (--give_up_s): "
                f"{self._last_problem}. Is mien-cloud running there?"
            )

    def failed(self, target: Target, problem: object) -> None:
        """Why the stream to `target` has ended, for people."""
        self._last_problem = f"{target}: {problem}"

    def leave_alone(self, target: Target, retry_after_s: float) -> None:
        """Note what a server has asked for; patience goes on, but is not looked at meanwhile."""
        now_s = asyncio.get_running_loop().time()
        noted = self._not_before_s | {target: now_s + retry_after_s}
        self._not_before_s = {
            target: until_s for target, until_s in noted.items() if until_s > now_s
        }

    def welcomed(self, target: Target, *, owed: bool) -> None:
        """A server has welcomed the device. owed: whether chunks wait for answers still."""
        self._servers.begin_at(target)
        if not owed:
            self._no_progress_since_s = None

    def answered(self) -> None:
        """A chunk has its answer.

        Only now: a server that welcomes and then breaks is none to hurry back to, nor for ever.
        """
        self._backoff.reset()
        self._walk.succeeded()
        self._reasons.clear()
        self._no_progress_since_s = None
