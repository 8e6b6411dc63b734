"""One page, followed from top to bottom in a folder that looks like a checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from mien.bundle import load_bundle
from tests.docs.pages import ROOT, Command
from tests.docs.workshop import BASH, BUNDLE, Program, Recognizer, Workshop
from tests.support.metrics_page import metrics_page
from tests.support.reseal import reseal
from tests.support.services import PATIENCE_S
from tests.support.waiting import until

# What of a checkout commands read. Links: nothing of it is written to.
LINKED: Final = ("deploy", "tests", "benchmarks", "trainer", "pyproject.toml")
# Stands for an input that broke something.
CRASH: Final = min(path.name for path in (ROOT / "tests/fuzz/corpus/payload").iterdir())
_PORTS: Final = re.compile(r" --(port|metrics_port|token_port) \d+")


class Session:
    """A page's folder, and the recognizer that the page itself started last, if any."""

    def __init__(self, folder: Path, workshop: Workshop) -> None:
        self.folder = folder
        self.workshop = workshop
        self._own: Recognizer | None = None
        self._serve: tuple[str, Program] | None = None
        self._furnish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _furnish(self) -> None:
        shutil.copytree(self.workshop.materials, self.folder)
        for name in LINKED:
            (self.folder / name).symlink_to(ROOT / name)
        shutil.copytree(ROOT / "docs" / "results", self.folder / "docs" / "results")
        shutil.copytree(BUNDLE, self.folder / "bundles" / BUNDLE.name)

    def add_newer_bundle(self) -> None:
        """A second bundle of the same latents, beside the released one."""
        newer = self.folder / "bundles" / "newer"
        if not newer.exists():
            reseal(self.folder / "newer", load_bundle(BUNDLE), name="newer").folder.rename(newer)
        if self._own is not None:
            # Then the recognizer has seen it, and has written down which one devices use.
            until((self.folder / "bundles" / "rollout.json").exists)

    @property
    def environment(self) -> dict[str, str]:
        """With the programs of this environment, and a home of its own for what is fetched."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(self.folder)}

    def recognizer(self, *, tls: bool) -> Recognizer:
        """The page's own where it speaks as the command does, else the one of all pages."""
        if self._own is not None and self._own.tls == tls:
            return self._own
        return self.workshop.secured if tls else self.workshop.plain

    def run(self, text: str) -> str:
        """What a command prints; it must end well."""
        ran = subprocess.run(
            [BASH, "-euo", "pipefail", "-c", text],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
            cwd=self.folder,
            env=self.environment,
        )
        assert ran.returncode == 0, f"{text}\n{ran.stdout[-2000:]}\n{ran.stderr[-3000:]}"
        return ran.stdout

    def start(self, text: str) -> Program:
        """A command that goes on, to be entered."""
        return Program(text, self.folder, self.environment)

    def serve(self, text: str) -> Mapping[str, Any]:
        """Start the page's own recognizer, on ports that are free; what it says when it serves.

        A port that is given stays only where the recognizer is started again.
        """
        self.stop()
        ports = " --port 0 --metrics_port 0" + (" --token_port 0" if "--token_port" in text else "")
        return self._begin(_PORTS.sub("", text) + ports, tls=speaks_tls(text))

    def serve_again(self) -> None:
        """Kill the page's own recognizer, and start it at the same address."""
        assert self._serve is not None
        assert self._own is not None
        (text, _), own = self._serve, self._own
        self.stop()
        self._begin(text.replace("--port 0", f"--port {own.port}", 1), tls=own.tls)

    def _begin(self, text: str, *, tls: bool) -> Mapping[str, Any]:
        program = self.start(text)
        self._serve = text, program
        said: dict[str, Any] = json.loads(program.line_with('"serving"'))
        self._own = Recognizer(said["port"], said["metrics_port"], said["token_port"], tls)
        return said

    def stop(self) -> None:
        """Stop the page's own recognizer."""
        if self._serve is not None:
            self._serve[1].stop()
        self._serve = self._own = None

    def feed(self, *, tls: bool) -> None:
        """Let the device `door` stream a clip."""
        folder = "certificates/" if (self.folder / "certificates").exists() else ""
        door = f"{folder}device-door"
        command = f"mien-edge run --source clip.mp4 --device_id door --bundle bundles/{BUNDLE.name}"
        secured = f" --tls_ca {folder}ca.pem --tls_certificate {door}.pem --tls_key {door}-key.pem"
        server = self.recognizer(tls=tls).address
        self.run(f"{command} --server {server}{secured if tls else ''}")

    def watched(self, text: str, see: Callable[[Program], None], *, tls: bool) -> None:
        """Start a command that watches, stream faces, and let `see` look at what it prints."""
        with self.start(text) as program:
            self.feed_watchers(program, tls=tls)
            see(program)
        until(lambda: self._watchers(tls=tls) == 0)  # lest the next one is taken for this one

    def feed_watchers(self, program: Program, *, tls: bool) -> None:
        """As `feed`, once somebody watches, or the program that should has ended."""
        until(lambda: self._watchers(tls=tls) > 0 or program.process.poll() is not None)
        self.feed(tls=tls)

    def _watchers(self, *, tls: bool) -> float:
        return metrics_page(self.recognizer(tls=tls).metrics_port)["mien_cloud_watchers"]

    def filled(self, command: Command) -> str:
        """The command, with what is here in the place of what its page names."""
        text = command.text
        for named, stand_in in STAND_INS.items():
            if re.search(named, text):
                text = re.sub(named, stand_in(self, speaks_tls(command.text)), text)
        return text


def speaks_tls(text: str) -> bool:
    """Whether a command is given an authority to trust."""
    return "ca.pem" in text


# What pages name → what is here; of a session, and whether the command speaks TLS.
STAND_INS: Final[Mapping[str, Callable[[Session, bool], str]]] = {
    r"--source \S+": lambda _, __: "--source clip.mp4",
    r"\b(recognizer|RECOGNIZER|localhost|127\.0\.0\.1):5005[01]\b": (
        lambda session, tls: session.recognizer(tls=tls).address
    ),
    r"\blocalhost:50052\b": (
        lambda session, tls: f"127.0.0.1:{session.recognizer(tls=tls).token_port}"
    ),
    r"\b(RECOGNIZER|127\.0\.0\.1):9464\b": (
        lambda session, tls: f"127.0.0.1:{session.recognizer(tls=tls).metrics_port}"
    ),
    r"\bDEVICE:9465\b": lambda session, _: f"127.0.0.1:{session.workshop.device_metrics_port}",
    r"\btls://one:4222,tls://two:4222\b": lambda session, _: session.workshop.nats,
    # Loopback, and not all of the machine's addresses, is enough for a test.
    r"--host 0\.0\.0\.0": lambda _, __: "--host 127.0.0.1",
    r"--live_page \S+": lambda _, __: "--live_page 127.0.0.1:0",
    r"\bFOLDER\b": lambda _, __: "archive",
    # Two do what four do, and a test shares its machine.
    r"--workers \d+": lambda _, __: "--workers 2",
    r"\bID\b": lambda _, __: "newer",
    r"build/fuzz/payload-crash-…": lambda _, __: f"tests/fuzz/corpus/payload/{CRASH}",
}
