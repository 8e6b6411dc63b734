"""A camera device of the lab: `mien-edge run` on a camera that films a drawn face."""

import signal
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from edge_encoder.spool.command import contents
from tests.support.books import Account
from tests.support.followed import Followed, followed
from tests.support.mjpeg_camera import MjpegCamera, walking
from tests.support.moving_face import Image, Scene
from tests.support.namespaces import Namespace
from tests.support.stepped_clock import SteppedClock
from tests.support.waiting import until

FRAME_S = 0.1
# Small chunks: more of them to go wrong. No picture is frozen when nobody is there. All faces are
# offered, however late the answers are.
SETTINGS = (
    *("--chunk_faces", "2", "--frozen_s", "0", "--metrics_port", "0", "--results", "-"),
    *("--rate_control", "false"),
)


def nobody(index: int) -> Image:
    """An empty room."""
    return Scene().empty()


def inside(network: Namespace | None) -> AbstractContextManager[None]:
    """In that network; where none is given, in the test's own."""
    return network.entered() if network else nullcontext()


@dataclass(frozen=True)
class Plan:
    """How a device is started. more: further flags of mien-edge."""

    name: str
    server: str
    bundle: Path
    folder: Path
    more: Sequence[str] = ()
    network: Namespace | None = None
    clock: SteppedClock | None = None


class LabDevice:
    """A device that can be killed and started again; its camera goes on."""

    def __init__(self, plan: Plan, camera: MjpegCamera, stack: ExitStack) -> None:
        self._plan = plan
        self._camera = camera
        self._stack = stack
        self._runs = 0
        self.start()

    def start(self) -> None:
        """A new run of the same device. Returns when it has its metrics."""
        plan = self._plan
        self._runs += 1
        log = plan.folder / f"{plan.name}-{self._runs}.log"
        arguments = ["run", "--source", self._camera.url, "--server", plan.server]
        arguments += ["--bundle", str(plan.bundle), "--device_id", plan.name, *SETTINGS, *plan.more]
        module = "edge_encoder.cli"
        if plan.clock is not None:
            module, arguments = plan.clock.started(module, *arguments)
        with inside(plan.network):
            run = followed("mien-edge", module, arguments, log)
            self.run: Followed = self._stack.enter_context(run)
        process = self.run.child.process
        until(lambda: bool(self.run.named("started")) or process.poll() is not None)
        assert process.poll() is None, self.run.child.last_words()

    @property
    def spool(self) -> Path:
        return self._plan.folder / f"{self._plan.name}-spool"

    @property
    def page(self) -> str:
        """Its /metrics."""
        port = self.run.named("started")[-1]["metrics_port"]
        with (
            inside(self._plan.network),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response,
        ):
            return str(response.read().decode())

    @property
    def account(self) -> Account:
        """Of this run, by its metrics."""
        return Account.of_run(self.page)

    @property
    def ledger(self) -> Account:
        """Of all its runs, by what stands in the spool."""
        return Account.of_spool(contents(self.spool))

    @property
    def recognised(self) -> int:
        """Faces of this run whose results it has heard."""
        return len(self.run.named("recognition"))

    def until_recognised(self, faces: int) -> None:
        """Wait until so many more faces of this run are recognised."""
        wanted = self.recognised + faces
        until(lambda: self.recognised >= wanted, self.run.child.last_words)

    def kill(self) -> None:
        """As kill -9 does: it gets no word in."""
        self.run.child.process.kill()
        self.run.child.process.wait()

    def see_nobody(self) -> None:
        """From now on no faces are offered; those that were found are sent."""
        self._camera.picture = nobody

    def see_somebody(self) -> None:
        """From now on a face walks to and fro."""
        self._camera.picture = walking

    def stop(self) -> int:
        """Ask it to end; its exit code, once everything that it can settle is settled."""
        self.run.child.process.send_signal(signal.SIGTERM)
        return self.run.child.process.wait(600)


@contextmanager
def filming(plan: Plan, frame_s: float = FRAME_S) -> Iterator[LabDevice]:
    """A device with its camera, both in the plan's network, until the context ends."""
    camera = MjpegCamera(walking, frame_s=frame_s)
    with ExitStack() as stack:
        with inside(plan.network):
            stack.enter_context(camera.on())
        with ExitStack() as runs:  # end before their camera does
            yield LabDevice(plan, camera, runs)
