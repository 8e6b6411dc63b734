"""What a transaction on the spool's database does: rows, the rules that drop them, the books.

The books are kept over all runs, in the same transaction as the rows, so that at any moment, and
after any crash, accepted = settled + dropped by each rule + still on disk.
"""

import sqlite3
from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mien.declaration import ContextOfUse, LegalException
from mien.messages.upward import Hello

# What a row costs in the file beside its body, about: key, time, count, and pages in part empty.
ROW_BYTES: Final = 48
ACCEPTED: Final = "accepted"
SETTLED: Final = "settled"

_COUNTED: Final = f"count(*), coalesce(sum(faces),0), coalesce(sum(length(body)+{ROW_BYTES}),0)"
_OF_EPOCH: Final = "epoch_id = (SELECT id FROM epochs WHERE device_id=? AND epoch=?)"


class Key(NamedTuple):
    """What the server knows an epoch by."""

    device_id: str
    epoch: int


class Row(NamedTuple):
    """A chunk on disk without its body."""

    device_id: str
    epoch: int
    seq: int
    faces: int
    body_bytes: int
    accepted_ms: int

    @property
    def key(self) -> Key:
        """The epoch it is of."""
        return Key(self.device_id, self.epoch)

    @property
    def size(self) -> int:
        """The bytes it counts as."""
        return self.body_bytes + ROW_BYTES


@dataclass
class Amount:
    """Chunks, the faces in them, and the bytes that they count as."""

    chunks: int = 0
    faces: int = 0
    size: int = 0


@dataclass
class Change(Amount):
    """What a transaction adds to what is on disk, and the rows that a rule has dropped."""

    dropped: list[tuple[str, Row]] = field(default_factory=list)


def total(db: sqlite3.Connection) -> Amount:
    """Everything that is on disk."""
    return Amount(*db.execute(f"SELECT {_COUNTED} FROM chunks").fetchone())  # noqa: S608


def waiting_epochs(db: sqlite3.Connection) -> list[Hello]:
    """The epochs that have chunks, the oldest first, as their Hello was."""
    found = db.execute(
        "SELECT device_id, epoch, start_unix_ms, bundle_id, purpose, notice, context, exception"
        " FROM epochs e"
        " WHERE EXISTS (SELECT 1 FROM chunks c WHERE c.epoch_id = e.id) ORDER BY id"
    )
    return [
        Hello(
            *(device_id, epoch, start_ms, (bundle_id,), purpose, notice),
            context=ContextOfUse(context),
            exception=LegalException(exception),
        )
        for device_id, epoch, start_ms, bundle_id, purpose, notice, context, exception in found
    ]


def amount(db: sqlite3.Connection, key: Key) -> tuple[Amount, int]:
    """What is there of an epoch that has chunks, and when its oldest was accepted (ms)."""
    query = f"SELECT {_COUNTED}, min(accepted_ms) FROM chunks WHERE {_OF_EPOCH}"  # noqa: S608
    *counted, oldest_ms = db.execute(query, key).fetchone()
    return Amount(*counted), oldest_ms


def books(db: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """Name (accepted, settled, or a drop's reason) → chunks and faces, over all runs."""
    return {name: (chunks, faces) for name, chunks, faces in db.execute("SELECT * FROM books")}


def insert(
    db: sqlite3.Connection,
    change: Change,
    hello: Hello,
    seq: int,
    accepted_ms: int,
    faces: int,
    body: bytes,
) -> None:
    """Put a chunk in, and its epoch with its first one."""
    row = (_epoch_id(db, hello), seq, accepted_ms, faces, body)
    db.execute("INSERT INTO chunks VALUES (?,?,?,?,?)", row)
    change.chunks += 1
    change.faces += faces
    change.size += len(body) + ROW_BYTES
    _book(db, ACCEPTED, faces)


def _epoch_id(db: sqlite3.Connection, hello: Hello) -> int:
    key = (hello.device_id, hello.epoch)
    query = "SELECT id, bundle_id FROM epochs WHERE device_id=? AND epoch=?"
    found = db.execute(query, key).fetchone()
    if found is not None:
        number, bundle_id = found
        if bundle_id != hello.bundle_ids[0]:
            # Each payload names its own; the newest is the likeliest to be served for long.
            newest = (hello.bundle_ids[0], number)
            db.execute("UPDATE epochs SET bundle_id=? WHERE id=?", newest)
        return int(number)
    db.execute(
        "INSERT INTO meta VALUES ('last_epoch', ?) ON CONFLICT (name) DO UPDATE"
        " SET value = max(value, excluded.value)",
        (hello.epoch,),
    )
    texts = (hello.bundle_ids[0], hello.purpose, hello.notice)
    declared = (hello.context.value, hello.exception.value)
    cursor = db.execute(
        "INSERT INTO epochs (device_id, epoch, start_unix_ms, bundle_id, purpose, notice, context,"
        " exception) VALUES (?,?,?,?,?,?,?,?)",
        (*key, hello.epoch_start_unix_ms, *texts, *declared),
    )
    assert cursor.lastrowid is not None  # noqa: S101  # an INSERT has one
    return cursor.lastrowid


def rows(
    db: sqlite3.Connection, key: Key | None = None, first: int = 0, last: int = 0
) -> Iterator[Row]:
    """The chunks by age, the oldest first: all, or first … last of one epoch."""
    # CROSS: in this order, so that the first rows cost the same however many there are.
    every = (
        "SELECT device_id, epoch, seq, faces, length(body), accepted_ms"
        " FROM chunks c CROSS JOIN epochs e ON e.id = c.epoch_id"
    )
    order = " ORDER BY c.epoch_id, c.seq"
    if key is None:
        found = db.execute(every + order)
    else:
        found = db.execute(
            f"{every} WHERE {_OF_EPOCH} AND seq BETWEEN ? AND ?{order}", (*key, first, last)
        )
    return map(Row._make, found)


def older_than(
    db: sqlite3.Connection, oldest_ms: int, held: Container[tuple[Key, int]]
) -> list[Row]:
    """What was accepted before `oldest_ms`, but for what is held."""
    old = []
    for row in rows(db):
        if row.accepted_ms >= oldest_ms:
            break
        if (row.key, row.seq) not in held:
            old.append(row)
    return old


def oldest(db: sqlite3.Connection, size: int, held: Container[tuple[Key, int]]) -> list[Row]:
    """The oldest chunks that count as `size` bytes or more together, but for what is held."""
    found: list[Row] = []
    for row in rows(db) if size > 0 else ():
        if size <= 0:
            break
        if (row.key, row.seq) not in held:
            found.append(row)
            size -= row.size
    return found


def settle(db: sqlite3.Connection, change: Change, settled: Collection[Row]) -> None:
    """Delete what the server has."""
    _delete(db, change, SETTLED, settled)


def drop(db: sqlite3.Connection, change: Change, reason: str, stale: Collection[Row]) -> None:
    """Delete what a rule has chosen, and book it under the rule's name."""
    _delete(db, change, reason, stale)
    change.dropped += [(reason, row) for row in stale]


def forget_epochs(db: sqlite3.Connection) -> None:
    """Delete the epochs without chunks, all but the newest: it may get some yet."""
    db.execute(
        "DELETE FROM epochs WHERE id < (SELECT max(id) FROM epochs) AND NOT EXISTS"
        " (SELECT 1 FROM chunks WHERE epoch_id = epochs.id)"
    )


def _delete(db: sqlite3.Connection, change: Change, book: str, gone: Collection[Row]) -> None:
    for row in gone:
        db.execute(
            f"DELETE FROM chunks WHERE {_OF_EPOCH} AND seq=?",  # noqa: S608
            (*row.key, row.seq),
        )
        change.chunks -= 1
        change.faces -= row.faces
        change.size -= row.size
        _book(db, book, row.faces)


def _book(db: sqlite3.Connection, name: str, faces: int) -> None:
    db.execute(
        "INSERT INTO books VALUES (?, 1, ?) ON CONFLICT (name) DO UPDATE"
        " SET chunks = chunks + 1, faces = faces + excluded.faces",
        (name, faces),
    )
