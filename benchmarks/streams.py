"""What devices that see nobody cost a recognizer, and what all of them cost an Envoy before it.

Most cameras see nobody most of the time. So many streams as --quiet_streams says are opened, each
over mutual TLS and a connection of its own, and left alone; while they are there, a hundred other
devices send a chunk of eight faces each half a second. Then the same in plain text behind Envoy, as
deploy/envoy has it, on one core. This process is all the devices and shares the machine.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.cloud import CHUNK_FACES, payloads_of
from benchmarks.devices import (
    OPTIONS,
    Dial,
    Pace,
    device_name,
    drive,
    in_plain_text,
    now,
)
from benchmarks.envoy import envoy
from benchmarks.processes import cpu_s, resident_bytes
from benchmarks.sample import sample
from benchmarks.services import recognizer
from mien.bundle import ALL_FILES, load_bundle
from mien.cli.certificates import DevelopmentCa
from mien.identity import Identity, Role
from mien.messages.upward import Hello, upward_to_proto
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub

SENDING = 100
PAUSE_S = 0.5
WARM_S = 1.0
# So many connect at a time.
OPENING = 64
# Long enough for a ping of each connection.
QUIET_S = 35.0
DAY = timedelta(days=1)
# Room in the queue for each stream, as the settings want it.
SETTINGS = ("--max_streams", "12000", "--queue_chunks", "16384", "--queue_bytes", "268435456")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Memory and processor time of quiet streams, of a recognizer and of Envoy."""
    bundle = load_bundle(options.bundle, ALL_FILES)
    payloads = payloads_of(bundle, sample(options, bundle))
    figures: dict[str, Any] = {"quiet_streams": options.quiet_streams, "sending_streams": SENDING}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ca = DevelopmentCa.make(folder)
        own = ca.files(ca.issue_server("here", ["127.0.0.1"], DAY))
        tls = (f"--tls_ca={own.ca}", f"--tls_certificate={own.certificate}", f"--tls_key={own.key}")
        with recognizer(options.bundle, folder, *SETTINGS, *tls) as served:
            names = [quiet_name(number) for number in range(options.quiet_streams)]
            names += [device_name(number) for number in range(SENDING)]
            dial = _over_tls(ca, names)
            load = _Load(served.address, bundle.bundle_id, payloads, dial)
            seen = asyncio.run(load.run(options.quiet_streams, options.seconds, served.pid))
            figures |= {f"recognizer_{key}": value for key, value in seen.items()}
        with contextlib.ExitStack() as stack:
            served = stack.enter_context(recognizer(options.bundle, folder, *SETTINGS))
            health = {served.address: served.said["metrics_port"]}
            front = stack.enter_context(envoy(health, folder))
            load = _Load(front.address, bundle.bundle_id, payloads, in_plain_text)
            seen = asyncio.run(load.run(options.quiet_streams, options.seconds, front.pid))
            figures |= {f"envoy_{key}": value for key, value in seen.items()}
    return figures


def _over_tls(ca: DevelopmentCa, names: Iterable[str]) -> Dial:
    # All before: to issue and to check them is not what is measured.
    credentials = {
        name: ca.files(ca.issue_client(Identity(Role.DEVICE, name), DAY)).read() for name in names
    }

    def dial(address: str, device_id: str) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            address, credentials[device_id].channel_credentials(), OPTIONS
        )

    return dial


def quiet_name(number: int) -> str:
    """The id of a device that sees nobody."""
    return f"quiet{number}"


class _Load:
    def __init__(self, address: str, bundle_id: str, payloads: Sequence[bytes], dial: Dial) -> None:
        self._address, self._bundle_id = address, bundle_id
        self._payloads, self._dial = payloads, dial

    async def run(self, quiet: int, seconds: float, pid: int) -> dict[str, Any]:
        """What process pid needs for quiet streams, and while others send beside them."""
        await self._sent(WARM_S)
        memory = resident_bytes(pid)
        began_s = now()
        async with self._opened(quiet):
            opened_s = now() - began_s
            spent_s, at_s = cpu_s(pid), now()
            await asyncio.sleep(QUIET_S)  # what is measured is that nothing happens
            idle = (cpu_s(pid) - spent_s) / (now() - at_s)
            grown = resident_bytes(pid) - memory
            spent_s = cpu_s(pid)
            latencies_s, faces = await self._sent(seconds)
            spent_s = cpu_s(pid) - spent_s
        p50, p99 = np.quantile(latencies_s, [0.5, 0.99]) * 1000
        return {
            "opened_streams_per_s": quiet / opened_s,
            "kb_a_quiet_stream": grown / quiet / 1000,
            "percent_of_a_core_while_all_are_quiet": 100 * idle,
            "cpu_us_a_chunk": 1e6 * spent_s / (faces / CHUNK_FACES),
            "p50_ms": float(p50),
            "p99_ms": float(p99),
        }

    async def _sent(self, seconds: float) -> tuple[list[float], int]:
        pace = Pace(SENDING, seconds, PAUSE_S)
        load, _ = await drive(self._address, self._bundle_id, self._payloads, pace, self._dial)
        if not load.latencies_s or load.rejected:
            raise SystemExit(f"{load.rejected} chunks were refused: is the machine busy?")
        return load.latencies_s, load.faces

    @asynccontextmanager
    async def _opened(self, quiet: int) -> AsyncIterator[None]:
        turns, epoch = asyncio.Semaphore(OPENING), time.time_ns()
        async with contextlib.AsyncExitStack() as stack:

            async def opened(number: int) -> Any:
                hello = Hello(
                    quiet_name(number), epoch, 0, (self._bundle_id,), "a benchmark", "none"
                )
                async with turns:
                    channel = self._dial(self._address, hello.device_id)
                    await stack.enter_async_context(channel)
                    call: Any = RecognitionServiceStub(channel).StreamFaces()
                    await call.write(upward_to_proto(hello))
                    await call.read()  # the welcome; an error where it is refused
                    return call

            calls = await asyncio.gather(*(opened(number) for number in range(quiet)))
            yield
            for call in calls:
                call.cancel()
