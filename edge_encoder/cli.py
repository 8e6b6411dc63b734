"""`mien-edge run`: encode a source and stream it until it ends, or SIGTERM or SIGINT.

`mien-edge spool` shows or empties what `run --spool` keeps on disk. Results go to standard output
or a file as JSON lines; everything else goes to standard error. Exit codes: 0 done, 1 the server
broke the contract, 2 wrong usage or setting, 3 the source cannot be read, 4 the server cannot be
reached, 5 the bundle cannot be used, 130 ended by Ctrl-C.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from edge_encoder.config import EdgeConfig, parse_config
from mien.errors import MienError
from mien.exit_codes import ExitCode, exit_code

USAGE: Final = """usage: mien-edge run --source SOURCE [--server HOST:PORT] [options]

Find faces, encode them in tens of bytes, and stream them to a recognizer.
`mien-edge run --help` lists the options.

       mien-edge spool --spool FOLDER [--json | --purge]

Show, or delete, the chunks that wait on disk for the recognizer."""

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if command in ("-h", "--help"):
        print(USAGE)
        return ExitCode.OK
    if command not in ("run", "spool"):
        print(USAGE, file=sys.stderr)
        return ExitCode.USAGE
    try:
        if command == "spool":
            from edge_encoder.spool.command import main as spool

            return spool(rest[:-1])
        config = parse_config(rest[:-1])
        _set_up_logging(config)
        # Only now: nothing heavy is loaded to say what is wrong with a flag.
        from edge_encoder.device import run

        return asyncio.run(run(config))
    except MienError as error:
        print(f"mien-edge: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our results, `head` for instance, has seen enough.
        sys.stdout = None
        return ExitCode.OK


def _set_up_logging(config: EdgeConfig) -> None:
    # FFmpeg and OpenCV write past the log, about things that SourceError says better.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    logging.basicConfig(
        level=config.logging_level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    shown = asdict(config) | {"source": config.shown_source}
    _log.info("settings: %s", json.dumps(shown, default=str))


if __name__ == "__main__":
    sys.exit(main())
