"""The spool: chunks on disk from the moment they are accepted until they are settled.

    add ─▶ chunks of the live epoch ─▶ settle           the epoch's name and the chunk's seq
                    │ the epoch is left                 never change: they are what the server
                    ▼                                   knows duplicates by, also after kill -9
           chunks of earlier epochs ─▶ next_after ─▶ settle

Two rules drop chunks, the oldest first, and never one that is in flight: more bytes than allowed
(`spool_full`), and older than allowed (`spool_age`, by a clock that no jump of the wall clock
concerns: `spool.clock`). While the disk takes nothing, `add` says so
and the chunk stays in memory alone. Called from the event loop only: a transaction is some tens of
microseconds, for none waits for the disk but at a checkpoint.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from edge_encoder.chunker import Chunk
from edge_encoder.metrics import SPOOL_AGE, SPOOL_DAMAGED, SPOOL_FULL, Metrics
from edge_encoder.spool import clock as clocks
from edge_encoder.spool import database as files
from edge_encoder.spool import ledger
from edge_encoder.spool.clock import Moment, RowClock
from edge_encoder.spool.ledger import ROW_BYTES, Amount, Change, Key
from edge_encoder.spool.seal import Seal, body_of, chunk_of, sealed_by
from mien.errors import ConfigError, SpoolError
from mien.messages.upward import Hello

_log = logging.getLogger(__name__)

_MAX_INTEGER: Final = (1 << 63) - 1  # of SQLite

T = TypeVar("T")


@dataclass(frozen=True)
class SpoolSettings:
    """Where chunks wait, how many bytes of them, how long, and the file with the key, if any."""

    folder: Path
    max_bytes: int = 64 << 20
    max_age_s: float = 86400.0
    key: Path | None = None


def key_of(hello: Hello) -> Key:
    """The epoch that a Hello opens."""
    return Key(hello.device_id, hello.epoch)


class Spool:
    """The chunks on disk; `open_spool` makes one."""

    def __init__(
        self, settings: SpoolSettings, seal: Seal, metrics: Metrics, clock: Callable[[], Moment]
    ) -> None:
        self._settings = settings
        self._seal = seal
        self._metrics = metrics
        self._clock = clock
        self._row_clock = RowClock.of(clock())
        self._kept_clock: RowClock | None = None  # as it stands in the file
        metrics.spool_limit_bytes.set(settings.max_bytes)
        self._database: sqlite3.Connection | None = None
        self._failing = False
        self._total = Amount()
        self._held: set[tuple[Key, int]] = set()
        self._dropped_until: dict[Key, int] = {}
        # Settled while the disk took no writes; to be deleted as soon as it does.
        self._settled_until: dict[Key, int] = {}

    @property
    def total(self) -> Amount:
        """What is on disk."""
        return self._total

    @property
    def failing(self) -> bool:
        """Whether the disk took nothing when it was last tried."""
        return self._failing

    def open(self) -> None:
        """Open the file. A disk without room is no error: `add` tries again.

        Raises ConfigError for a folder or a key that cannot be used.
        """
        try:
            self._open()
        except (sqlite3.Error, OSError) as error:
            self._failed(error)

    def close(self) -> None:
        """Leave the file to the next run."""
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def next_epoch(self, now_ms: int) -> int:
        """An epoch above all that this file has seen, whatever the clock says."""
        last = self._read("SELECT value FROM meta WHERE name='last_epoch'", ())
        return max(now_ms, last[0] + 1) if last else now_ms

    def add(self, hello: Hello, seq: int, chunk: Chunk) -> bool:
        """Keep a chunk of an epoch; False where it is not: it stays in memory alone.

        Room is made as the rules say; where only chunks in flight are left to drop, there is none.
        """
        faces = len(chunk.frames)
        body = self._sealed(hello, seq, chunk)

        def insert(db: sqlite3.Connection, change: Change) -> bool:
            if not self._apply_rules(db, change, len(body) + ROW_BYTES):
                return False
            ledger.insert(db, change, hello, seq, self._now_ms(), faces, body)
            return True

        kept = bool(self._write(insert))
        if kept and self._failing:
            _log.warning("the spool in %s takes chunks again", self._settings.folder)
            self._failing = False
            self._metrics.spool_failing.set(0)
        return kept

    def is_too_large(self, hello: Hello, seq: int, chunk: Chunk) -> bool:
        """Whether a chunk could not be kept if there were nothing else."""
        return len(self._sealed(hello, seq, chunk)) + ROW_BYTES > self._settings.max_bytes

    def _sealed(self, hello: Hello, seq: int, chunk: Chunk) -> bytes:
        return self._seal.close(body_of(chunk), _name(hello, seq))

    def miss(self, chunk: Chunk) -> None:
        """Count a chunk that is not kept, once, however often it is tried."""
        self._metrics.spool_unstored.inc(len(chunk.frames))

    def settle(self, hello: Hello, first: int, last: int) -> int:
        """Delete the chunks first … last of an epoch, which the server has; returns their faces."""
        key = key_of(hello)
        last = min(last, _MAX_INTEGER)
        for held in [item for item in self._held if item[0] == key and first <= item[1] <= last]:
            self._held.discard(held)

        def delete(db: sqlite3.Connection, change: Change) -> int:
            ledger.settle(db, change, list(ledger.rows(db, key, first, last)))
            return -change.faces

        faces = self._write(delete)
        if faces is None and first <= 1:
            self._settled_until[key] = max(last, self._settled_until.get(key, 0))
        return faces or 0

    def hold(self, hello: Hello, seq: int) -> None:
        """The chunk is in flight: no rule may drop it."""
        self._held.add((key_of(hello), seq))

    def release(self, hello: Hello, seq: int) -> None:
        """It no longer is."""
        self._held.discard((key_of(hello), seq))

    def dropped_until(self, hello: Hello) -> int:
        """The highest seq of an epoch that a rule has dropped in this run; 0 for none."""
        return self._dropped_until.get(key_of(hello), 0)

    def apply_rules(self) -> None:
        """What `add` does beside adding, for times in which nothing is added."""
        files.remove_aside(self._settings.folder, self._settings.max_age_s)

        def tidy(db: sqlite3.Connection, change: Change) -> bool:
            self._apply_rules(db, change, 0)
            ledger.forget_epochs(db)
            return True

        self._write(tidy)

    def oldest_epoch(self, other_than: Collection[Key]) -> Hello | None:
        """The Hello of the oldest epoch that has chunks, as it was when they were accepted."""
        found = self._guarded(ledger.waiting_epochs) or []
        return next((hello for hello in found if key_of(hello) not in other_than), None)

    def next_after(self, hello: Hello, seq: int) -> tuple[int, Chunk] | None:
        """The first chunk of an epoch beyond `seq`; one that cannot be read is dropped, counted."""
        query = (
            "SELECT seq, body FROM chunks WHERE seq > ? AND epoch_id ="
            " (SELECT id FROM epochs WHERE device_id=? AND epoch=?) ORDER BY seq LIMIT 1"
        )
        while found := self._read(query, (min(seq, _MAX_INTEGER), *key_of(hello))):
            seq, body = found
            try:
                return seq, chunk_of(self._seal.open(body, _name(hello, seq)))
            except SpoolError as error:
                _log.warning("chunk %d of epoch %d is dropped: %s", seq, hello.epoch, error)
                self._drop_damaged(key_of(hello), seq)
        return None

    def _drop_damaged(self, key: Key, seq: int) -> None:
        def drop(db: sqlite3.Connection, change: Change) -> bool:
            ledger.drop(db, change, SPOOL_DAMAGED, list(ledger.rows(db, key, seq, seq)))
            return True

        self._write(drop)

    def _apply_rules(self, db: sqlite3.Connection, change: Change, size: int) -> bool:
        """Drop what is too old, then the oldest until `size` more bytes fit.

        False when they do not, because all that is left is in flight.
        """
        oldest_ms = self._now_ms() - round(self._settings.max_age_s * 1000)
        ledger.drop(db, change, SPOOL_AGE, ledger.older_than(db, oldest_ms, self._held))
        excess = self._total.size + change.size + size - self._settings.max_bytes
        stale = ledger.oldest(db, excess, self._held)
        if sum(row.size for row in stale) < excess:
            return False
        ledger.drop(db, change, SPOOL_FULL, stale)
        return True

    def _open(self) -> sqlite3.Connection:
        database = files.open_database(self._settings.folder)
        try:
            files.check_key(database, self._seal)
            self._row_clock, self._kept_clock = clocks.row_clock(database, self._clock()), None
            self._total = ledger.total(database)
        except BaseException:
            database.close()
            raise
        self._database = database
        self._show()
        return database

    def _now_ms(self) -> int:
        """The time of rows. Where the wall clock has jumped, it is told from it anew."""
        moment = self._clock()
        clock = self._row_clock.following(moment)
        if clock != self._row_clock:
            jump_s = (clock.set_ms - self._row_clock.set_ms) / 1000
            _log.info("the clock was set by %+.0f s; what waits is as old as before", jump_s)
            self._row_clock = clock
        return clock.time_ms(moment)

    def _write(self, action: Callable[[sqlite3.Connection, Change], T]) -> T | None:
        """Run an action as one transaction; None when the disk does not take it."""
        change = Change()

        def transaction(db: sqlite3.Connection) -> T:
            nonlocal change
            change = Change()
            db.execute("BEGIN IMMEDIATE")
            try:
                for key, last in self._settled_until.items():
                    ledger.settle(db, change, list(ledger.rows(db, key, 0, last)))
                result = action(db, change)
                if self._row_clock != self._kept_clock:
                    clocks.keep(db, self._row_clock)
                db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # SQLite may have done it already
                    db.execute("ROLLBACK")
                raise
            return result

        result = self._guarded(transaction)
        if result is not None:
            self._settled_until.clear()
            self._kept_clock = self._row_clock
            self._apply(change)
        return result

    def _apply(self, change: Change) -> None:
        self._total.chunks += change.chunks
        self._total.faces += change.faces
        self._total.size += change.size
        for reason, row in change.dropped:
            self._metrics.drop(reason, row.faces)
            self._dropped_until[row.key] = max(row.seq, self._dropped_until.get(row.key, 0))
        self._show()

    def _read(self, query: str, values: tuple[object, ...]) -> tuple[Any, ...] | None:
        """The first row of a query; None when there is none, or the disk does not give it."""
        return self._guarded(lambda db: db.execute(query, values).fetchone())

    def _guarded(self, operation: Callable[[sqlite3.Connection], T]) -> T | None:
        """None, and a message, when the disk or the file is not as it should be."""
        try:
            db = self._database or self._open()
            try:
                return operation(db)
            except sqlite3.Error as error:
                if files.is_damage(error):
                    raise
                # What the log holds may fit into the file, and then there is room again.
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                return operation(db)
        except (sqlite3.Error, OSError, ConfigError) as error:
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        if self._database and isinstance(error, sqlite3.Error) and files.is_damage(error):
            self._start_anew(error)
        if not self._failing:
            _log.error(
                "the spool in %s takes no chunks: %s. Until it does again, faces wait in memory "
                "alone and are lost with the process",
                self._settings.folder,
                error,
            )
        self._failing = True
        self._metrics.spool_failing.set(1)

    def _start_anew(self, error: Exception) -> None:
        """The file was damaged while it was open. What it held is given up, and counted."""
        self.close()
        with contextlib.suppress(OSError):
            files.set_aside(self._settings.folder, error)
        self._metrics.drop(SPOOL_DAMAGED, self._total.faces)
        self._total = Amount()
        self._held.clear()
        self._show()

    def _show(self) -> None:
        self._metrics.spool_chunks.set(self._total.chunks)
        self._metrics.spool_faces.set(self._total.faces)
        self._metrics.spool_bytes.set(self._total.size)


@contextmanager
def open_spool(
    settings: SpoolSettings,
    metrics: Metrics,
    clock: Callable[[], Moment] = clocks.now,
) -> Iterator[Spool]:
    """The spool of a folder, for this process alone. Raises ConfigError."""
    spool = Spool(settings, sealed_by(settings.key), metrics, clock)
    with files.locked(settings.folder):
        spool.open()
        try:
            yield spool
        finally:
            spool.close()


def _name(hello: Hello, seq: int) -> bytes:
    return f"{hello.device_id}/{hello.epoch}/{seq}".encode()
