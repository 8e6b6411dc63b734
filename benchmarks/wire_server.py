"""The far end of benchmarks.wire: both services behind TLS, in a network namespace of their own.

python -m benchmarks.wire_server --bundle FOLDER
"""

import argparse
import asyncio
import contextlib
import json
import signal
import tempfile
from pathlib import Path

from benchmarks.network import SERVER_ADDRESS, leave_for_own_network, take_end
from benchmarks.services import START_TIMEOUT_S, Served, jpeg_service, recognizer
from benchmarks.tls import proxy, server_side, throw_away_certificate


def main() -> None:
    """Entry point; serves until SIGTERM."""
    parser = argparse.ArgumentParser("python -m benchmarks.wire_server", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    options = parser.parse_args()
    leave_for_own_network()
    print(json.dumps({"event": "cable"}), flush=True)
    take_end(START_TIMEOUT_S)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        services = {
            "recognizer": stack.enter_context(recognizer(options.bundle, folder)),
            "jpeg": stack.enter_context(jpeg_service(options.bundle, folder)),
        }
        asyncio.run(_serve(services, folder))


async def _serve(services: dict[str, Served], folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    certificate = throw_away_certificate(SERVER_ADDRESS, folder)
    async with contextlib.AsyncExitStack() as stack:
        ports = {}
        for name, served in services.items():
            target = ("127.0.0.1", int(served.said["port"]))
            inward = server_side(folder)
            ports[name] = await stack.enter_async_context(
                proxy(SERVER_ADDRESS, target, inward=inward)
            )
        said = {"event": "serving", "certificate": certificate.decode(), **ports}
        print(json.dumps(said), flush=True)
        await stop.wait()


if __name__ == "__main__":
    main()
