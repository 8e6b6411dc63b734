"""`mien-cloud` as a process of its own."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from mien.bundle import Bundle
from mien.messages.downward import Drain, Welcome
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.recognizer import Device, health, hello, payload

CLOUD = (sys.executable, "-m", "cloud_recognizer.cli")
ON_FREE_PORTS = ("--port", "0", "--metrics_port", "0")


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    running = await asyncio.create_subprocess_exec(
        *CLOUD, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def serving_line(running: asyncio.subprocess.Process) -> dict[str, Any]:
    assert running.stdout is not None
    line: dict[str, Any] = json.loads(await running.stdout.readline())
    return line


async def test_the_one_line_on_stdout_says_where_it_serves(bundles: Path, bundle: Bundle) -> None:
    async with process("serve", "--bundles", str(bundles), *ON_FREE_PORTS) as running:
        line = await serving_line(running)
        running.send_signal(signal.SIGINT)
        rest, log = await running.communicate()
    assert line.pop("port") > 0
    assert line.pop("metrics_port") > 0
    assert line == {
        "event": "serving",
        "token_port": None,
        "live_page": None,
        "bundle_id": bundle.bundle_id,
        "providers": ["CPUExecutionProvider"],
    }
    assert rest == b""
    assert b'"max_streams": 512' in log  # the settings
    assert b"CPUExecutionProvider" in log
    assert running.returncode == 0


async def test_sigterm_drains_answers_what_was_received_and_exits_with_0(
    bundles: Path, bundle: Bundle
) -> None:
    arguments = ("serve", "--bundles", str(bundles), *ON_FREE_PORTS, "--max_batch_wait_s", "0.5")
    async with process(*arguments) as running:
        port = (await serving_line(running))["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            device = Device(RecognitionServiceStub(channel))
            assert isinstance(await device.open(hello(bundle)), Welcome)
            for seq in (1, 2, 3, 4):
                await device.send(seq, payload(bundle))
            running.send_signal(signal.SIGTERM)
            assert await device.read() == Drain(grace_ms=10_000)
            assert await health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
            answers = await device.close()
            assert await device.call.code() is grpc.StatusCode.OK
        assert [result.seq for result in answers.results] == [1, 2, 3, 4]
        assert answers.acknowledged[-1] == 4
        _, log = await running.communicate()
    assert running.returncode == 0
    assert b"Traceback" not in log


async def test_a_second_signal_does_not_wait(bundles: Path, bundle: Bundle) -> None:
    async with process("serve", "--bundles", str(bundles), *ON_FREE_PORTS) as running:
        port = (await serving_line(running))["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            device = Device(RecognitionServiceStub(channel))
            await device.open(hello(bundle))
            running.send_signal(signal.SIGTERM)
            assert isinstance(await device.read(), Drain)
            running.send_signal(signal.SIGTERM)
            assert await running.wait() == -signal.SIGTERM


async def run(*arguments: str) -> tuple[int, str, str]:
    running = await asyncio.create_subprocess_exec(
        *CLOUD, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, log = await running.communicate()
    assert running.returncode is not None
    return running.returncode, out.decode(), log.decode()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "usage: mien-cloud serve"),
        (("server",), 2, "usage: mien-cloud serve"),
        (("serve",), 2, "bundles"),
        (("serve", "--bundles", "BUNDLES", "--credits", "0"), 2, "mien-cloud: credits must be"),
        (("serve", "--bundles", "/nowhere"), 5, "mien-cloud: there is no bundle in /nowhere"),
    ],
)
async def test_what_is_wrong_is_said_without_a_traceback(
    bundles: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    given = [str(bundles) if argument == "BUNDLES" else argument for argument in arguments]
    exit_code, out, log = await run(*given)
    assert (exit_code, out) == (code, "")
    assert message in log
    assert "Traceback" not in log


async def test_help_goes_to_stdout() -> None:
    code, out, _ = await run("--help")
    assert code == 0
    assert "mien-cloud serve" in out


def test_neither_torch_nor_opencv_nor_the_other_parts_are_imported(bundles: Path) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
import cloud_recognizer.cli
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.server import serving

async def serve():
    config = CloudConfig(Path({str(bundles)!r}), port=0, metrics_port=0, allow_reconstruction=True)
    async with serving(config, Metrics()):
        unwanted = {{"torch", "cv2", "onnx", "edge_encoder", "trainer", "compressai"}}
        print(sorted(unwanted & {{name.partition(".")[0] for name in sys.modules}}))

asyncio.run(serve())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
