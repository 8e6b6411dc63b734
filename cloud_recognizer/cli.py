"""`mien-cloud serve`: run the recognizer until SIGTERM or SIGINT.

Standard output gets one JSON line when it serves; everything else goes to standard error.
Exit codes: 0 stopped as asked, 2 wrong usage or setting, 4 no NATS where one is set, 5 a bundle
that cannot be used, 130 interrupted while it stopped.
"""

import asyncio
import gc
import json
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from cloud_recognizer.config import CloudConfig, parse_config
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.server import serving
from mien.errors import MienError
from mien.exit_codes import ExitCode, exit_code

USAGE: Final = """usage: mien-cloud serve --bundles DIR [options]

Recognise the expressions of faces that devices stream.
`mien-cloud serve --help` lists the options."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if command in ("-h", "--help"):
        print(USAGE)
        return ExitCode.OK
    if command != "serve":
        print(USAGE, file=sys.stderr)
        return ExitCode.USAGE
    try:
        config = parse_config(rest[:-1])
        logging.basicConfig(
            level=config.logging_level,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        _log.info("settings: %s", json.dumps(config.loggable(), default=str))
        asyncio.run(serve(config))
    except MienError as error:
        print(f"mien-cloud: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return ExitCode.OK


async def serve(config: CloudConfig) -> None:
    """Serve until a signal asks to stop; a second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    async with serving(config, Metrics()) as server:
        # What is there now stays: without it, each look for cycles would take tens of
        # milliseconds, in which nobody is answered.
        gc.collect()
        gc.freeze()
        print(json.dumps({"event": "serving", **asdict(server)}), flush=True)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
