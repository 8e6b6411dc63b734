"""`mien-edge run`: encode a source and stream it until it ends, or SIGTERM or SIGINT.

`mien-edge fleet` does so for several cameras, each in a process of its own, as a file lists them.
`mien-edge spool` shows or empties what `run --spool` keeps on disk.

Results go to standard output or a file as JSON lines; everything else goes to standard error.
Exit codes: 0 done, 1 the server broke the contract, 2 wrong usage or setting, 3 the source cannot
be read, 4 the server cannot be reached, 5 the bundle cannot be used, 6 the recognizer's policy
refuses what is declared, 130 ended by Ctrl-C.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final, NoReturn

from edge_encoder.config import parse_config
from edge_encoder.fleet.config import parse_fleet_config
from mien.errors import MienError
from mien.exit_codes import ExitCode, exit_code

USAGE: Final = """usage: mien-edge run --source SOURCE [--server HOST:PORT] [options]
       mien-edge fleet --cameras FILE [options]

       mien-edge spool --spool FOLDER [--json | --purge]

Find faces, encode them in tens of bytes, and stream them to a recognizer: of one source, or of
the cameras that a file lists. `mien-edge run --help` and `mien-edge fleet --help` list the
options. `mien-edge spool` shows, or deletes, the chunks that wait on disk for the recognizer."""

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    commands = {"-h": _help, "--help": _help, "run": _run, "fleet": _fleet, "spool": _spool}
    if command not in commands:
        print(USAGE, file=sys.stderr)
        return ExitCode.USAGE
    try:
        return commands[command](rest[:-1])
    except MienError as error:
        print(f"mien-edge: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our results, `head` for instance, has seen enough.
        sys.stdout = None
        return ExitCode.OK


def program(arguments: Sequence[str] | None = None) -> NoReturn:
    """`main` as a process: ends with its exit code, whatever a camera's thread is still doing.

    A decoder may block for its whole timeout after everyone has left, and one that is taken down
    under its thread, as Python's end does, can abort the process. All is settled by then.
    """
    code = main(arguments)
    if any(thread.daemon for thread in threading.enumerate()):
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.flush()
        os._exit(code)
    sys.exit(code)


def _help(arguments: Sequence[str]) -> int:
    print(USAGE, flush=True)  # while a reader that is gone is still looked for
    return ExitCode.OK


def _run(arguments: Sequence[str]) -> int:
    config = parse_config(arguments)
    shown = asdict(config) | {"source": config.shown_source}
    # The device's name tells the cameras of a fleet apart.
    _set_up_logging(config.logging_level, f"{config.device} ", shown)
    # Only now: nothing heavy is loaded to say what is wrong with a flag.
    from edge_encoder.device import run
    from edge_encoder.memory import map_large_blocks

    map_large_blocks()
    return asyncio.run(run(config))


def _fleet(arguments: Sequence[str]) -> int:
    config = parse_fleet_config(arguments)
    _set_up_logging(config.logging_level, "", asdict(config))
    from edge_encoder.fleet.supervisor import run

    return asyncio.run(run(config))


def _spool(arguments: Sequence[str]) -> int:
    from edge_encoder.spool.command import main

    return main(arguments)


def _set_up_logging(level: int, who: str, settings: dict[str, Any]) -> None:
    # FFmpeg and OpenCV write past the log, about things that SourceError says better.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    logging.basicConfig(
        level=level,
        format=f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s",
    )
    _log.info("settings: %s", json.dumps(settings, default=str))


if __name__ == "__main__":
    program()
