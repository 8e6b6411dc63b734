"""The spool's file: made, checked, locked, and moved aside when it cannot be used.

FOLDER/mien-spool.sqlite            SQLite, WAL; -wal and -shm beside it while it is open
FOLDER/mien-spool.sqlite.damaged    the last one that could not be read, for as long as a chunk
FOLDER/mien-spool.sqlite.foreign    another program's database that lay here; never deleted
FOLDER/mien-spool.lock              held by the process that writes
"""

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edge_encoder.spool.seal import Seal
from mien.errors import ConfigError, SpoolError

_log = logging.getLogger(__name__)

FILE: Final = "mien-spool.sqlite"
LOCK: Final = "mien-spool.lock"
DAMAGED: Final = FILE + ".damaged"
FOREIGN: Final = FILE + ".foreign"
APPLICATION_ID: Final = 0x6D69656E  # "mien"
SCHEMA_VERSION: Final = 2
_KEY_CHECK: Final = b"mien spool"  # sealed with the key: who opens it has the right one

# Oldest first is the order of the primary key, so no second index is written with every chunk.
_SCHEMA: Final = """
CREATE TABLE epochs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device_id TEXT NOT NULL, epoch INTEGER NOT NULL, start_unix_ms INTEGER NOT NULL,
    bundle_id TEXT NOT NULL, purpose TEXT NOT NULL, notice TEXT NOT NULL,
    context INTEGER NOT NULL DEFAULT 0, exception INTEGER NOT NULL DEFAULT 0,
    UNIQUE (device_id, epoch)
);
CREATE TABLE chunks (
    epoch_id INTEGER NOT NULL, seq INTEGER NOT NULL, accepted_ms INTEGER NOT NULL,
    faces INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (epoch_id, seq)
) WITHOUT ROWID;
CREATE TABLE books (
    name TEXT PRIMARY KEY, chunks INTEGER NOT NULL, faces INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""
# Version 1 knew no context of use: what waits since then has declared none.
_FROM_VERSION_1: Final = """
ALTER TABLE epochs ADD COLUMN context INTEGER NOT NULL DEFAULT 0;
ALTER TABLE epochs ADD COLUMN exception INTEGER NOT NULL DEFAULT 0;
"""
_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    # A commit survives the process, not a power cut; the disk is waited for at checkpoints alone.
    "PRAGMA synchronous=NORMAL",
    "PRAGMA wal_autocheckpoint=256",  # pages of 4 KiB: the log stays about 1 MiB
    "PRAGMA journal_size_limit=1048576",
    "PRAGMA cache_size=-256",  # KiB
    "PRAGMA secure_delete=FAST",  # what is deleted does not stay readable in the file
)
_UNREADABLE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_NOT_OURS_TO_WRITE: Final = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_AUTH,
    }
)
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


class _ForeignError(Exception):
    """A sound database that another program, or another version, has made."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file's content is at fault, not the disk's room or its state."""
    return _primary(error) in _UNREADABLE


def _primary(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the one process that writes to a spool. Raises ConfigError when another one is."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"spool: {folder} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"spool: another mien-edge is using {folder}; stop it, or give each its own"
            ) from error
        yield
    finally:
        os.close(handle)


def open_database(folder: Path) -> sqlite3.Connection:
    """The spool's database; a file that cannot be read, or is not ours, is moved aside first.

    Raises ConfigError for a folder that cannot be written, sqlite3.Error or OSError for a disk that
    has no room or does not work at the moment.
    """
    path = folder / FILE
    try:
        try:
            return _opened(path)
        except _ForeignError as error:
            _move(path, folder / FOREIGN, str(error))
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            set_aside(folder, error)
        return _opened(path)
    except sqlite3.Error as error:
        if _primary(error) in _NOT_OURS_TO_WRITE:
            raise ConfigError(f"spool: {path} cannot be written: {error}") from error
        raise
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise ConfigError(f"spool: {path} cannot be written: {error.strerror}") from error
        raise


def read_database(folder: Path) -> sqlite3.Connection | None:
    """The same for reading beside the process that writes; None when there is no file.

    Raises SpoolError where `open_database` would move the file aside.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    try:
        _check(database, path)
    except (_ForeignError, sqlite3.Error) as error:
        database.close()
        raise SpoolError(f"{path}: {error}") from error
    return database


def check_key(database: sqlite3.Connection, seal: Seal) -> None:
    """See that the chunks in a database were written as `seal` writes; an empty one may change.

    Raises ConfigError that says what to do.
    """
    (chunks,) = database.execute("SELECT count(*) FROM chunks").fetchone()
    found = database.execute("SELECT value FROM meta WHERE name='key_check'").fetchone()
    if chunks:
        _check_key(chunks, found, seal)
    if seal.encrypts:
        value = seal.close(_KEY_CHECK, _KEY_CHECK)
        database.execute("INSERT OR REPLACE INTO meta VALUES ('key_check', ?)", (value,))
    elif found is not None:
        database.execute("DELETE FROM meta WHERE name='key_check'")


def _check_key(chunks: int, found: tuple[bytes] | None, seal: Seal) -> None:
    way_out = "or empty the spool with `mien-edge spool --purge`"
    if seal.encrypts and found is None:
        raise ConfigError(
            f"spool_key: {chunks} chunks wait that were written without a key: run without "
            f"spool_key until they are sent, {way_out}"
        )
    if found is None:
        return
    if not seal.encrypts:
        raise ConfigError(
            f"spool_key: {chunks} chunks wait encrypted: give the key's file, {way_out}"
        )
    try:
        seal.open(found[0], _KEY_CHECK)
    except SpoolError:
        raise ConfigError(
            f"spool_key: {chunks} chunks wait that another key has encrypted: give that one, "
            f"{way_out}"
        ) from None


def set_aside(folder: Path, error: Exception) -> None:
    """Move a damaged database out of the way; the one moved before it goes."""
    _move(folder / FILE, folder / DAMAGED, f"it is damaged ({error})")


def remove_aside(folder: Path, older_than_s: float = 0.0) -> None:
    """Delete a damaged database that was moved aside so long ago: there are faces in it."""
    with contextlib.suppress(FileNotFoundError):
        aside = folder / DAMAGED
        if time.time() - aside.stat().st_mtime >= older_than_s:
            aside.unlink()


def remove(folder: Path) -> None:
    """Delete the spool's files, all but a foreign one."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        (folder / (FILE + suffix)).unlink(missing_ok=True)
    remove_aside(folder)


def _move(path: Path, target: Path, why: str) -> None:
    _log.error(
        "the spool %s cannot be used: %s. It is kept as %s, and a new one begins; what was in it "
        "is neither sent nor counted",
        path,
        why,
        target.name,
    )
    path.replace(target)
    os.utime(target)
    for suffix in (
        "-wal",
        "-shm",
        "-journal",
    ):  # of no use without it, and harmful beside a new one
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _opened(path: Path) -> sqlite3.Connection:
    # SQLite gives -wal and -shm the rights of the database.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    try:
        if _is_new(database):
            _create(database)
        _update(database)
        _check(database, path)
        for pragma in _PRAGMAS:
            database.execute(pragma).fetchall()
    except BaseException:
        database.close()
        raise
    return database


def _is_new(database: sqlite3.Connection) -> bool:
    tables = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    return _number(database, "application_id") == 0 and tables == 0


def _create(database: sqlite3.Connection) -> None:
    """All or nothing: a process killed in the middle leaves an empty file."""
    database.executescript(
        f"BEGIN; {_SCHEMA} PRAGMA application_id={APPLICATION_ID};"
        f"PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
    )


def _update(database: sqlite3.Connection) -> None:
    """Bring the file of an earlier release up to date: all or nothing, as `_create`."""
    ours = _number(database, "application_id") == APPLICATION_ID
    if ours and _number(database, "user_version") == 1:
        database.executescript(
            f"BEGIN; {_FROM_VERSION_1} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
        )


def _check(database: sqlite3.Connection, path: Path) -> None:
    if _number(database, "application_id") != APPLICATION_ID:
        raise _ForeignError("another program has made it")
    version = _number(database, "user_version")
    if version != SCHEMA_VERSION:
        raise _ForeignError(f"it is of version {version}, this program writes {SCHEMA_VERSION}")
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_schema")}
    if verdict != "ok" or not {"epochs", "chunks", "books", "meta"} <= tables:
        error = sqlite3.DatabaseError(f"{path.name}: {verdict}")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _number(database: sqlite3.Connection, pragma: str) -> int:
    return int(database.execute(f"PRAGMA {pragma}").fetchone()[0])
