"""`mien demo`: the whole way of a face on one machine, as two processes that meet on loopback.

source → mien-edge ══ gRPC ══> mien-cloud → results → mien-edge ── JSON lines ──> this process,
which shows them, and at the end writes summary.json, timeline.png and annotated.mp4.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mien.cli.child import Child
from mien.cli.live import View, make_view
from mien.cli.outputs import write_outputs
from mien.cli.pictures import pictures_of
from mien.cli.released import chosen_bundle
from mien.cli.results import FaceResult
from mien.cli.stop import StopRequest, stop_on_signals
from mien.cli.tally import Tally
from mien.errors import ConfigError
from mien.exit_codes import ExitCode
from mien.urls import without_credentials

# Loading and proving the bundle takes a second or two; a busy machine gets a minute.
_CLOUD_START_S = 60.0
# Asked to stop, the edge has this long to send what it has and to get the answers.
_EDGE_FLUSH_S = 15.0
_TICK_S = 0.5
# A camera that is not there is said to be so; who watches would rather correct it than wait.
_SOURCE_GIVE_UP_S = "10"


@dataclass(frozen=True)
class DemoOptions:
    """`mien demo`, as typed. Without `seconds` it runs until the source ends, or Ctrl-C."""

    source: str
    out: Path
    bundle: Path | None = None
    at_clip_speed: bool = True
    seconds: float | None = None

    @property
    def title(self) -> str:
        """What stands over the live view, which is recorded and shown around."""
        return f"mien demo · {without_credentials(self.source)}"


@dataclass
class Recording:
    """What the edge said: every recognised face, and its closing summary."""

    faces: list[FaceResult] = field(default_factory=list)
    summary: Mapping[str, Any] | None = None


class ServiceFailedError(Exception):
    """A service did not do its work; `reason` completes a sentence that starts with its name."""

    def __init__(self, service: Child, reason: str) -> None:
        super().__init__(f"{service.name} {reason}")
        self.service = service


def demo(options: DemoOptions) -> ExitCode:
    """Run the demo, and say on stderr what went wrong if a service fails.

    Raises BundleError, ConfigError when `out` cannot be written, VideoError.
    """
    bundle = chosen_bundle(options.bundle)
    _make_folder(options.out)
    recording = Recording()
    with pictures_of(options.source, options.out) as pictures:
        exit_code = _run(options, bundle, pictures.record, recording)
        if recording.summary is not None:
            print(write_outputs(options.out, recording.summary, recording.faces, pictures))
    return exit_code


def _run(options: DemoOptions, bundle: Path, record: Path | None, recording: Recording) -> ExitCode:
    """Fill the recording; what went wrong is said, and returned as an exit code."""
    try:
        with stop_on_signals() as stop, _cloud(options, bundle) as cloud:
            address = _serving_address(cloud, stop)
            edge = _edge(options, bundle, address, record)
            with edge, make_view(options.title) as view:
                _follow(edge, cloud, view, recording, stop, options.seconds)
    except ServiceFailedError as error:
        return _report(error)
    return ExitCode.OK


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: {out} cannot be made a folder: {error.strerror}") from error


def _cloud(options: DemoOptions, bundle: Path) -> Child:
    arguments = ["serve", "--bundles", str(bundle), "--host", "127.0.0.1", "--port", "0"]
    arguments += ["--metrics_port", "null"]
    return Child("mien-cloud", "cloud_recognizer.cli", arguments, options.out / "cloud.log")


def _edge(options: DemoOptions, bundle: Path, address: str, record: Path | None) -> Child:
    arguments = ["run", "--source", options.source, "--server", address, "--bundle", str(bundle)]
    arguments += ["--results", "-", "--pace", str(options.at_clip_speed).lower()]
    arguments += ["--source_give_up_s", _SOURCE_GIVE_UP_S]
    arguments += ["--purpose", "demonstration on one machine", "--context", "demonstration"]
    if record is not None:
        arguments += ["--record", str(record)]
    return Child("mien-edge", "edge_encoder.cli", arguments, options.out / "edge.log")


def _serving_address(cloud: Child, stop: StopRequest) -> str:
    """Where the recognizer listens, once it has proven its bundle and is warm."""
    print("starting the recognizer …", file=sys.stderr, flush=True)
    deadline = time.monotonic() + _CLOUD_START_S
    while time.monotonic() < deadline:
        stop.raise_if_made()
        try:
            event = cloud.next_event(_TICK_S)
        except TimeoutError:
            continue
        if event is None:
            raise _ended(cloud)
        if event.get("event") == "serving":
            return f"127.0.0.1:{event['port']}"
    raise ServiceFailedError(cloud, f"did not serve within {_CLOUD_START_S:g} s")


def _follow(
    edge: Child,
    cloud: Child,
    view: View,
    recording: Recording,
    stop: StopRequest,
    seconds: float | None,
) -> None:
    """Show and keep what the edge says, until it has said everything."""
    tally = Tally(time.monotonic)
    stop_at = math.inf if seconds is None else time.monotonic() + seconds
    give_up_at = math.inf
    while time.monotonic() < give_up_at:
        try:
            event = edge.next_event(_TICK_S)
        except TimeoutError:
            event = {}
        if event is None:
            if edge.wait(_EDGE_FLUSH_S) != ExitCode.OK:
                if recording.summary is None:
                    stop.raise_if_made()
                raise _ended(edge)
            return
        _take(event, view, tally, recording)
        if cloud.process.poll() is not None:
            raise _ended(cloud)
        if give_up_at == math.inf and (stop.made or time.monotonic() >= stop_at):
            edge.terminate()
            give_up_at = time.monotonic() + _EDGE_FLUSH_S
    raise ServiceFailedError(edge, f"did not finish within {_EDGE_FLUSH_S:g} s of being asked to")


def _take(event: Mapping[str, Any], view: View, tally: Tally, recording: Recording) -> None:
    if event.get("wire_bytes") is not None:
        tally.wire(int(event["wire_bytes"]))
    match event.get("event"):
        case "recognition":
            face = FaceResult.parse(event)
            recording.faces.append(face)
            tally.add(face)
            view.update(face, tally)
        case "summary":
            recording.summary = event


def _ended(service: Child) -> ServiceFailedError:
    return ServiceFailedError(service, f"ended with exit code {service.wait(_EDGE_FLUSH_S)}")


def _report(error: ServiceFailedError) -> ExitCode:
    """Say what the service said last, and hand on its exit code where that means something."""
    service = error.service
    print(f"mien demo: {error}\n{service.last_words()}", file=sys.stderr)
    known = (ExitCode.USAGE, ExitCode.SOURCE, ExitCode.SERVER, ExitCode.BUNDLE)
    code = service.process.returncode
    return ExitCode(code) if code in known else ExitCode.FAILURE
