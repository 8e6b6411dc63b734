"""The time that chunks are dated by: it goes on evenly, whatever the wall clock is set to.

    time of a row = wall clock - ahead_ms            age = time now - time of acceptance

A small device has no battery for its clock: it boots in 1970, and NTP sets it minutes later. A row
is never changed, so what follows such a jump is `ahead_ms`, one number in the file's table `meta`.
Jumps are told from time that passes by the clock that counts since the boot, which nobody sets;
from one boot to the next there is only the wall clock, and it is believed where it can be right.
"""

import sqlite3
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, Self

# Steps that are smaller are not worth following: ages are of hours.
_JUMP_MS: Final = 1000
# 2023-01-01: before this program was written. A clock that shows less has never been set.
_EARLIEST_MS: Final = 1_672_531_200_000
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
# Of Linux; it counts a suspended system's time, too.
_RUNNING: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Moment(NamedTuple):
    """What the clocks show, in milliseconds.

    boot: tells one boot of the system from another; empty where the system does not say.
    running_ms: since the boot. wall_ms: Unix time, right or wrong.
    """

    boot: str
    running_ms: int
    wall_ms: int

    @property
    def set_ms(self) -> int:
        """What the wall clock is set to: constant until somebody sets it."""
        return self.wall_ms - self.running_ms


def now() -> Moment:
    """What the system's clocks show now."""
    return Moment(
        _boot(), time.clock_gettime_ns(_RUNNING) // 1_000_000, time.time_ns() // 1_000_000
    )


@cache
def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class RowClock:
    """The time of rows, by a wall clock that was last seen set to `set_ms`, in boot `boot`."""

    boot: str
    set_ms: int
    ahead_ms: int = 0

    @classmethod
    def of(cls, moment: Moment, ahead_ms: int = 0) -> Self:
        """The clock that is `ahead_ms` behind the wall clock of a moment."""
        return cls(moment.boot, moment.set_ms, ahead_ms)

    def time_ms(self, moment: Moment) -> int:
        """The time of a row that is accepted at a moment."""
        return moment.wall_ms - self.ahead_ms

    def following(self, moment: Moment) -> Self:
        """The same after what the wall clock has jumped by, of the same boot."""
        jump_ms = moment.set_ms - self.set_ms
        if abs(jump_ms) < _JUMP_MS:
            return self
        return replace(self, set_ms=moment.set_ms, ahead_ms=self.ahead_ms + jump_ms)


def row_clock(db: sqlite3.Connection, moment: Moment) -> RowClock:
    """The clock of a file's rows at a moment, of whatever boot.

    Where the wall clock shows less than when the newest row was accepted, or that was before the
    clock had been set at all, the time between is not known: the newest row is of now, the others
    as much older as they are.
    """
    newest_ms = db.execute("SELECT max(accepted_ms) FROM chunks").fetchone()[0]
    if newest_ms is None:
        return RowClock.of(moment)
    kept = _read(db)
    if kept.boot and kept.boot == moment.boot:
        clock = kept.following(moment)
    else:
        clock = RowClock.of(moment, kept.ahead_ms)
    accepted_ms = newest_ms + clock.ahead_ms
    if accepted_ms > moment.wall_ms or accepted_ms < _EARLIEST_MS <= moment.wall_ms:
        clock = replace(clock, ahead_ms=moment.wall_ms - newest_ms)
    return clock


def _read(db: sqlite3.Connection) -> RowClock:
    """What `keep` wrote; of a file that has none, rows are dated by the wall clock itself."""
    found = dict(db.execute("SELECT name, value FROM meta WHERE name LIKE 'clock_%'"))
    return RowClock(
        found.get("clock_boot", ""), found.get("clock_set_ms", 0), found.get("clock_ahead_ms", 0)
    )


def keep(db: sqlite3.Connection, clock: RowClock) -> None:
    """Write it down, for the next process that opens the file."""
    values = [
        ("clock_boot", clock.boot),
        ("clock_set_ms", clock.set_ms),
        ("clock_ahead_ms", clock.ahead_ms),
    ]
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values)
