"""A real Prometheus with the rules of deploy/, as a process."""

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.rules import CONFIG, FILES

PROMETHEUS = shutil.which("prometheus")
_LISTENS = re.compile(r'msg="Listening on" address=127\.0\.0\.1:(\d+)')
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Prometheus:
    """One that answers."""

    port: int

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Label sets and values at this moment."""
        asked = urllib.parse.urlencode({"query": expr})
        result: list[dict[str, Any]] = self._get(f"query?{asked}")["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """Every rule that it has loaded, in the order of its files, with its health."""
        groups = self._get("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _get(self, what: str) -> Any:
        return _read(f"http://127.0.0.1:{self.port}/api/v1/{what}")["data"]


def alerts(port: int) -> list[dict[str, Any]]:
    """What the Alertmanager at that port has at the moment."""
    found: list[dict[str, Any]] = _read(f"http://127.0.0.1:{port}/api/v2/alerts")
    return found


def _read(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310
        return json.load(response)


@contextmanager
def watching(targets: dict[str, str], folder: Path) -> Iterator[Prometheus]:
    """The repository's configuration with other targets (job → HOST:PORT), each second."""
    document = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    document["global"] = dict.fromkeys(document["global"], "1s")
    document["rule_files"] = [str(path) for path in FILES]
    del document["alerting"]
    for job in document["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    log = folder / "prometheus.log"
    command = [
        *(str(PROMETHEUS), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
        "--web.listen-address=127.0.0.1:0",
    ]
    with log.open("wb") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        try:
            yield Prometheus(_port(log, process))
        finally:
            process.terminate()


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s and process.poll() is None:
        if found := _LISTENS.search(log.read_text(encoding="utf-8")):
            return int(found[1])
        time.sleep(0.1)
    raise AssertionError(f"prometheus does not listen:\n{log.read_text(encoding='utf-8')}")
