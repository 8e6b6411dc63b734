"""What the device side costs on a video of 640×480: processor time, memory, and time to the start.

The clip is scaled to 640×480, a `mien-cloud` beside takes the chunks, and `mien-edge run` reads the
clip as fast as it can. What counts is the processor time of the whole process, reading and uplink
included: how many frames a second one core could do, whatever else the machine has to do. Start-up
(interpreter, detector, encoder) is told apart, by a second run over the first frames alone.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from benchmarks import processes
from mien.cli.child import Child

SIZE = (640, 480)
START_TIMEOUT_S = 60.0
FIRST_FRAMES = 2


@dataclass(frozen=True)
class _Run:
    """One run of the edge. cpu_s: of the whole process. first_s: until the first recognition."""

    cpu_s: float
    peak_bytes: int
    first_s: float
    summary: dict[str, Any]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Frames a second of a core, peak memory, and seconds to the first face's recognition."""
    if options.clip is None or not options.clip.is_file():
        raise SystemExit("--clip must name a video with a face")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = _scaled(options.clip, folder / "clip.avi")
        start = _scaled(options.clip, folder / "start.avi", FIRST_FRAMES)
        arguments = ["serve", "--bundles", str(options.bundle), "--port", "0"]
        log = folder / "cloud.log"
        with Child("mien-cloud", "cloud_recognizer.cli", arguments, log) as server:
            serving = server.next_event(START_TIMEOUT_S)
            if serving is None:
                raise SystemExit(f"mien-cloud did not start:\n{server.last_words()}")
            short = _edge(options, start, serving["port"], folder)
            whole = _edge(options, clip, serving["port"], folder)
    return _figures(short, whole)


def _scaled(source: Path, target: Path, frames: int | None = None) -> Path:
    """The clip at 640×480 as Motion JPEG, which every OpenCV writes and reads."""
    reader = cv2.VideoCapture(str(source))
    fps = reader.get(cv2.CAP_PROP_FPS) or 25.0
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"MJPG"), fps, SIZE)
    written = 0
    while frames is None or written < frames:
        there, image = reader.read()
        if not there:
            break
        writer.write(cv2.resize(image, SIZE, interpolation=cv2.INTER_CUBIC))
        written += 1
    writer.release()
    reader.release()
    if not written:
        raise SystemExit(f"{source} holds no frame that can be read")
    return target


def _edge(options: argparse.Namespace, clip: Path, port: int, folder: Path) -> _Run:
    arguments = ["run", "--source", str(clip), "--server", f"127.0.0.1:{port}"]
    arguments += ["--bundle", str(options.bundle)]
    if options.detector_model is not None:
        arguments += ["--detector_model", str(options.detector_model)]
    begun_s = time.perf_counter()
    first_s, peak_bytes, summary = None, 0, {}
    with Child("mien-edge", "edge_encoder.cli", arguments, folder / "edge.log") as edge:
        while (event := edge.next_event(START_TIMEOUT_S)) is not None:
            if event["event"] == "recognition" and first_s is None:
                first_s = time.perf_counter() - begun_s
            if event["event"] == "summary":
                summary = dict(event)
                peak_bytes = processes.peak_bytes(edge.process.pid)
        if first_s is None:
            raise SystemExit(f"no face was recognised:\n{edge.last_words()}")
        # Reaped here, for the operating system's own account of its time. Of its memory it would
        # tell this process's own, which the child shared until it became another program.
        _, status, usage = os.wait4(edge.process.pid, 0)
        edge.process.returncode = os.waitstatus_to_exitcode(status)
        if edge.process.returncode:
            raise SystemExit(f"mien-edge failed:\n{edge.last_words()}")
    return _Run(usage.ru_utime + usage.ru_stime, peak_bytes, first_s, summary)


def _figures(short: _Run, whole: _Run) -> dict[str, Any]:
    frames = whole.summary["frames"] - short.summary["frames"]
    cpu_s = whole.cpu_s - short.cpu_s
    return {
        "frame_size": "640×480",
        "frames": whole.summary["frames"],
        "faces_recognised": whole.summary["faces_recognised"],
        "frames_per_cpu_s": frames / cpu_s,
        "cpu_ms_per_frame": 1000 * cpu_s / frames,
        "encoder_ms_per_face": whole.summary["edge_ms_per_face"],
        "start_peak_memory_mb": short.peak_bytes / 1e6,
        "peak_memory_mb": whole.peak_bytes / 1e6,
        "start_cpu_s": short.cpu_s,
        "start_to_first_recognition_s": short.first_s,
        "payload_bytes_per_face": whole.summary["payload_bytes_per_face"],
        "load_average": os.getloadavg()[0],
    }
