"""What the commands of the pages need: recognizers, a device, and the files that pages name."""

import shutil
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import cv2

from mien.identity import Role
from tests.docs.pages import ROOT
from tests.support.certificates import Authority, TokenIssuer, flags
from tests.support.mjpeg_camera import MjpegCamera, walking
from tests.support.moving_face import film, walk
from tests.support.nats_server import nats_server
from tests.support.services import PATIENCE_S, edge, serving

BUNDLE = ROOT / "bundles" / "ferplus-48"
BASH = shutil.which("bash") or "/bin/bash"
# Half a second of pictures is enough; a slow camera leaves the processor to others.
FRAMES, CAMERA_FRAME_S = 12, 0.5
NATS_PASSWORD = "of the pages"  # noqa: S105
# Certificate as a page names it → the device id in it.
DEVICES = {
    "device-door": "door",
    "front-door": f"{socket.gethostname()}.front-door",
    "yard-camera": "yard-camera",
}


@dataclass(frozen=True)
class Recognizer:
    """One that serves. tls: whether it speaks TLS, and wants to know who calls."""

    port: int
    metrics_port: int
    token_port: int | None
    tls: bool

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class Program:
    """A command that runs until it is stopped, and what it prints."""

    def __init__(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        self._log = folder / "program.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [BASH, "-c", f"exec {command}"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env=environment,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def line_with(self, *words: str) -> str:
        """The next line that has all these in it; fails when it ends before."""
        assert self.process.stdout is not None
        for line in iter(self.process.stdout.readline, ""):
            if all(word in line for word in words):
                return line
        raise AssertionError(f"it ended without {words}: {self._log.read_text()[-3000:]}")

    def rest(self) -> str:
        """What it still prints until it ends, which must be well."""
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, self._log.read_text()[-3000:]
        return out

    def stop(self) -> None:
        """Ask it to end, and see to it that it does."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            if self.process.stdout is not None:
                self.process.stdout.close()


class Workshop:
    """What all pages share, each part made when a command first needs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @cached_property
    def materials(self) -> Path:
        """What readers have and pages name: a clip, a photograph, certificates, a token."""
        folder = self.folder / "materials"
        folder.mkdir()
        pictures = walk(FRAMES)
        film(folder / "clip.mp4", pictures)
        cv2.imwrite(str(folder / "photo.jpg"), pictures[0])
        (folder / "nats-login").write_text(f"recognizer:{NATS_PASSWORD}\n")
        (folder / "token.jwt").write_text(TokenIssuer(folder).token())
        for name, device_id in DEVICES.items():
            files = self._authority.client(Role.DEVICE, device_id)
            shutil.copy(files.ca, folder / "ca.pem")
            shutil.copy(str(files.certificate), folder / f"{name}.pem")
            shutil.copy(str(files.key), folder / f"{name}-key.pem")
        return folder

    @cached_property
    def _authority(self) -> Authority:
        return Authority.made(self.folder / "authority")

    @cached_property
    def plain(self) -> Recognizer:
        """A recognizer on loopback, without TLS."""
        return self._serving("plain", tls=False)

    @cached_property
    def secured(self) -> Recognizer:
        """A recognizer that trusts the certificates of the materials."""
        return self._serving("secured", *flags(self._authority.server()), tls=True)

    def _serving(self, name: str, *more: str, tls: bool) -> Recognizer:
        log = self.folder / f"{name}.log"
        cloud = self._running.enter_context(serving(BUNDLE, log, 0, *more))
        return Recognizer(cloud.port, cloud.metrics_port, cloud.token_port, tls)

    @cached_property
    def nats(self) -> str:
        """The address of a NATS server with the authority and the login of the materials."""
        folder = self.folder / "nats"
        folder.mkdir()
        files = self._authority.server()
        own = ("--tls", "--tlscert", str(files.certificate), "--tlskey", str(files.key))
        login = ("--user", "recognizer", "--pass", NATS_PASSWORD)
        server = self._running.enter_context(nats_server(folder, *own, *login))
        return server.address.replace("nats://", "tls://")

    @cached_property
    def device_metrics_port(self) -> int:
        """Where a device, on a camera that goes on for ever, gives its metrics."""
        url = self._running.enter_context(MjpegCamera(walking, frame_s=CAMERA_FRAME_S).on())
        log = self.folder / "device.log"
        device = edge(url, self.plain.address, BUNDLE, log, "--metrics_port", "0")
        event = self._running.enter_context(device).next_event(PATIENCE_S)
        assert event is not None, device.last_words()
        return int(event["metrics_port"])
