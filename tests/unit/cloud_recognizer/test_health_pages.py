"""Health over HTTP, for those without a certificate."""

import asyncio
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import grpc

from cloud_recognizer.config import CloudConfig
from cloud_recognizer.health_pages import ANSWER_S
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.server import serving
from mien.bounded_server import MAX_CONNECTIONS
from mien.bundle import Bundle
from mien.messages.downward import Drain
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.certificates import Authority, settings
from tests.support.metric_catalogue import ROOT
from tests.support.recognizer import Device, eventually, hello, running_recognizer

CHECK = [sys.executable, str(ROOT / "deploy" / "check_health.py")]


def asked(port: int | None, path: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def get(port: int | None, path: str) -> tuple[int, str]:
    return await asyncio.to_thread(asked, port, path)


async def test_a_recognizer_that_speaks_tls_says_without_a_certificate_that_it_is_well(
    bundles: Path, tmp_path: Path
) -> None:
    server = Authority.made(tmp_path / "certificates").server()
    async with running_recognizer(bundles, metrics_port=0, **settings(server)) as running:
        port = running.serving.metrics_port
        assert await get(port, "/readyz") == (200, "ok\n")
        assert await get(port, "/livez") == (200, "ok\n")
        status, page = await get(port, "/metrics")
        assert status == 200
        assert "mien_cloud_streams" in page
        url = f"http://127.0.0.1:{port}/readyz"
        ran = await asyncio.to_thread(subprocess.run, [*CHECK, url], check=False)
        assert ran.returncode == 0
    ran = subprocess.run([*CHECK, url], capture_output=True, check=False)
    assert ran.returncode == 1


async def test_a_connection_beyond_the_bound_of_its_port_is_counted(bundles: Path) -> None:
    async with running_recognizer(bundles, metrics_port=0) as running:
        with ExitStack() as held:
            for _ in range(MAX_CONNECTIONS + 1):
                address = ("127.0.0.1", running.serving.metrics_port or 0)
                held.enter_context(socket.create_connection(address, timeout=30))
            await eventually(
                lambda: running.sample("turned_away_total", bound="metrics_connections") == 1
            )


async def test_one_that_drains_is_not_ready(bundles: Path, bundle: Bundle) -> None:
    ports: asyncio.Queue[tuple[int, int | None]] = asyncio.Queue()
    stop = asyncio.Event()
    config = CloudConfig(bundles, port=0, metrics_port=0, drain_grace_s=30.0)

    async def serve() -> None:
        async with serving(config, Metrics()) as server:
            ports.put_nowait((server.port, server.metrics_port))
            await stop.wait()

    served = asyncio.create_task(serve())
    port, metrics_port = await ports.get()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        device = Device(RecognitionServiceStub(channel))
        await device.open(hello(bundle))
        stop.set()
        assert await device.read() == Drain(grace_ms=30_000)
        assert await get(metrics_port, "/readyz") == (503, "no\n")
        await device.close()
        await served


async def test_a_loop_that_does_not_answer_is_not_alive(bundles: Path) -> None:
    async with running_recognizer(bundles, metrics_port=0) as running:
        waiting = asyncio.to_thread(asked, running.serving.metrics_port, "/livez")
        answer = asyncio.create_task(waiting)
        await asyncio.sleep(0)  # the request begins
        time.sleep(3 * ANSWER_S)  # what is tested: nothing else runs meanwhile
        assert await answer == (503, "no\n")
        assert await get(running.serving.metrics_port, "/livez") == (200, "ok\n")
