"""`mien-edge spool`: what waits on disk, for people or as JSON, and how to be rid of it."""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from edge_encoder.spool import clock as clocks
from edge_encoder.spool import database as files
from edge_encoder.spool import ledger
from edge_encoder.spool.store import key_of
from mien.errors import ConfigError
from mien.exit_codes import ExitCode

DESCRIPTION: Final = (
    "Show the chunks that wait in a spool for the recognizer, also while mien-edge runs with it."
)


def main(arguments: Sequence[str]) -> int:
    """Parse the arguments and do it. Raises ConfigError and SpoolError."""
    asked = _parse(arguments)
    if not asked.spool.is_dir():
        raise ConfigError(f"spool: {asked.spool} is no folder")
    if asked.purge:
        with files.locked(asked.spool):
            files.remove(asked.spool)
        print(f"The spool in {asked.spool} is empty.")
        return ExitCode.OK
    found = contents(asked.spool)
    print(json.dumps(found, indent=2) if asked.json else _in_words(found))
    return ExitCode.OK


def contents(folder: Path, clock: Callable[[], clocks.Moment] = clocks.now) -> dict[str, Any]:
    """What is in a spool; `books` over all runs: accepted = settled + drops + what waits."""
    database = files.read_database(folder)
    if database is None:
        return _document([], {}, encrypted=False)
    with closing(database) as db:
        db.execute("BEGIN")  # one moment, whatever is written meanwhile
        moment = clock()
        now_ms = clocks.row_clock(db, moment).time_ms(moment)
        epochs = [
            {
                "device_id": hello.device_id,
                "epoch": hello.epoch,
                "epoch_start_unix_ms": hello.epoch_start_unix_ms,
                "bundle_id": hello.bundle_ids[0],
                "chunks": amount.chunks,
                "faces": amount.faces,
                "bytes": amount.size,
                "oldest_age_s": round((now_ms - oldest_ms) / 1000, 3),
            }
            for hello in ledger.waiting_epochs(db)
            for amount, oldest_ms in [ledger.amount(db, key_of(hello))]
        ]
        encrypted = db.execute("SELECT 1 FROM meta WHERE name='key_check'").fetchone() is not None
        return _document(epochs, ledger.books(db), encrypted=encrypted)


def _document(
    epochs: list[dict[str, Any]], books: dict[str, tuple[int, int]], *, encrypted: bool
) -> dict[str, Any]:
    return {
        "chunks": sum(epoch["chunks"] for epoch in epochs),
        "faces": sum(epoch["faces"] for epoch in epochs),
        "bytes": sum(epoch["bytes"] for epoch in epochs),
        "oldest_age_s": max((epoch["oldest_age_s"] for epoch in epochs), default=None),
        "encrypted": encrypted,
        "epochs": epochs,
        "books": {
            name: {"chunks": chunks, "faces": faces} for name, (chunks, faces) in books.items()
        },
    }


def _in_words(found: dict[str, Any]) -> str:
    lines = ["Nothing waits."] if not found["chunks"] else [_amount(found)]
    lines += [
        f"  epoch {epoch['epoch']} of {epoch['device_id']}, bundle {epoch['bundle_id'][:12]}: "
        + _amount(epoch)
        for epoch in found["epochs"]
    ]
    lines += [f"{name}: {book['faces']} faces" for name, book in found["books"].items()]
    if found["encrypted"]:
        lines.append("The payloads are encrypted.")
    return "\n".join(lines)


def _amount(found: dict[str, Any]) -> str:
    return (
        f"{found['chunks']} chunks, {found['faces']} faces, {found['bytes']} bytes, "
        f"the oldest for {_duration(found['oldest_age_s'])}"
    )


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("mien-edge spool", description=DESCRIPTION, allow_abbrev=False)
    given = os.environ.get("MIEN_EDGE_SPOOL")
    parser.add_argument(
        "--spool",
        type=Path,
        metavar="FOLDER",
        required=given is None,
        default=given and Path(given),
        help="the folder that mien-edge run was given (environment: MIEN_EDGE_SPOOL)",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--json", action="store_true", help="as one JSON object")
    action.add_argument("--purge", action="store_true", help="delete everything that waits")
    asked = parser.parse_args(arguments)
    asked.spool = asked.spool.expanduser()
    return asked
