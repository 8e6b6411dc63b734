"""The run of one source: frames to faces to chunks to the uplink, and the figures of it.

    reader thread   worker thread                           event loop
    Source ──────▶  FaceEncoder → Chunker  ── chunks ──▶  Uplink ⇄ server
                                                             └─▶ ResultWriter

Only the reader touches the source, one frame at a time; only the worker touches the models and the
chunker; only the loop touches the network. So what a camera gave is sent while the reader waits for
more of it. A source that can wait does (`put`), a camera does not (`offer`). Another bundle is made
ready on a thread of its own, and the worker changes to it between two frames.
"""

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from edge_encoder.capture.frames import Frame, Gap, Source
from edge_encoder.chunker import Chunk, Chunker, FrameTime
from edge_encoder.faces import FaceCoder, FaceEncoder
from edge_encoder.metrics import CAMERA_NEWER, MAX_FACES, RATE_CONTROL, UNREADABLE, Metrics
from edge_encoder.pacing import Pacing
from edge_encoder.results import ResultWriter
from edge_encoder.uplink import Uplink
from edge_encoder.wire import MEASURED_BY
from mien.bundle import Bundle
from mien.errors import SourceError
from mien.messages.results import ChunkResult
from mien.messages.upward import Hello
from mien.tracing import Laps

_log = logging.getLogger(__name__)

# How often the wire is looked at for the live display, at most.
WIRE_EVENT_S = 0.25


@dataclass
class Figures:
    """What a run adds up to."""

    frames: int = 0
    faces_sent: int = 0
    faces_recognised: int = 0
    payload_bytes: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    wire_bytes: int | None = None

    def summary(self, clip: str, bundle_id: str, metrics: Metrics) -> dict[str, Any]:
        """The fields of the summary event; None where there is nothing to divide by."""

        def per_face(total: float | None) -> float | None:
            if total is None or not self.faces_sent:
                return None
            return round(total / self.faces_sent, 3)

        return {
            "clip": clip,
            "frames": self.frames,
            "faces_sent": self.faces_sent,
            "faces_recognised": self.faces_recognised,
            "payload_bytes_per_face": per_face(self.payload_bytes),
            "wire_bytes_per_face": per_face(self.wire_bytes),
            "edge_ms_per_face": per_face(self.cpu_s * 1000),
            "bundle_id": bundle_id,
            "payload_bytes": self.payload_bytes,
            "wire_bytes": self.wire_bytes,
            "wire_measured_by": MEASURED_BY if self.wire_bytes is not None else "unavailable",
            "edge_ms_measured_by": "processor time of the encoder's thread: detection, tracking, "
            "alignment, analysis and coding of all frames; reading the source is not in it",
            "wall_s": round(self.wall_s, 3),
            "drops": {reason: count for reason, count in metrics.drops.items() if count},
            "errors": dict(metrics.rejections),
        }


@dataclass
class Pipeline:
    """One run; `figures` are right also while it runs and when it has failed.

    traced: whether chunks are, so that their frames' stages are timed.
    max_chunk_s: a face of a live source waits no longer for others, also when no frame comes.
    """

    source: Source
    encoder: FaceEncoder
    chunker: Chunker
    results: ResultWriter
    bundle: Bundle
    metrics: Metrics
    pacing: Pacing | None = None
    traced: bool = False
    max_chunk_s: float = math.inf
    figures: Figures = field(default_factory=Figures)
    _stopping: bool = False
    _wire_event_s: float = 0.0
    _uplink: Uplink | None = None
    _next: tuple[Bundle, FaceCoder] | None = None
    _expressions: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._expressions[self.bundle.bundle_id] = self.bundle.manifest.expressions

    async def change(self, bundle: Bundle) -> None:
        """Encode with another bundle from the next frame on. Raises BundleError.

        What was coded with the one before is sent before, and no face is lost.
        """
        coder = await asyncio.to_thread(FaceCoder, bundle)
        self._expressions[bundle.bundle_id] = bundle.manifest.expressions
        self._next = bundle, coder
        if self._uplink is not None:
            self._uplink.encode_with(bundle.bundle_id)

    def stop(self) -> None:
        """Read no more frames; what was read is still sent and recognised."""
        self._stopping = True
        self.source.interrupt()

    async def run(self, uplink: Uplink) -> None:
        """Until the source ends and everything is settled. Raises SourceError and Uplink's.

        When the source fails, what it gave is settled first.
        """
        self._uplink = uplink
        await uplink.ready()
        start_s = time.monotonic()
        failure: SourceError | None = None
        with ThreadPoolExecutor(1, "encoder") as worker, ThreadPoolExecutor(1, "frames") as reader:
            try:
                try:
                    await self._stream(reader, worker, uplink)
                except SourceError as error:
                    failure = error
                await self._send(
                    await asyncio.get_running_loop().run_in_executor(worker, self._last)
                )
                await uplink.finish()
            finally:
                self.stop()
                self.figures.wall_s = time.monotonic() - start_s
                self._count_drops()
                self._note_wire(uplink)
        if failure is not None:
            raise failure

    async def _stream(
        self, reader: ThreadPoolExecutor, worker: ThreadPoolExecutor, uplink: Uplink
    ) -> None:
        loop = asyncio.get_running_loop()
        frames = iter(self.source)
        self._restrict()
        while True:
            laps = Laps() if self.traced else None
            reading = loop.run_in_executor(reader, self._read, frames)
            await self._send_what_waits(reading, worker)
            if (frame := await reading) is None:
                return
            if laps is not None:
                laps.lap("capture")
            await self._send(await loop.run_in_executor(worker, self._step, frame, laps))
            self._restrict()
            if self.pacing is not None:
                self.pacing.follow(self.bundle)
                self.pacing.look(uplink, self.encoder.in_view)
                uplink.shed(self.pacing.stale_s)

    async def _send_what_waits(
        self, reading: "asyncio.Future[Frame | Gap | None]", worker: ThreadPoolExecutor
    ) -> None:
        """Until the frame is there, or nothing waits: a camera that stalls holds no face back."""
        loop = asyncio.get_running_loop()
        while self.source.live and (age_s := self.chunker.age_s) is not None:
            done, _ = await asyncio.wait({reading}, timeout=max(self.max_chunk_s - age_s, 0.0))
            if done:
                return
            if (self.chunker.age_s or 0.0) >= self.max_chunk_s:
                await self._send(await loop.run_in_executor(worker, self._last))

    def _restrict(self) -> None:
        """Keep to the limits of the server, of the latest that there was."""
        welcome = self._uplink.welcome if self._uplink is not None else None
        if welcome is not None:
            self.chunker.restrict(welcome.max_chunk_faces, welcome.max_chunk_bytes)
            if self.pacing is not None:
                self.pacing.aim(welcome.target_face_bytes, welcome.max_chunk_faces)

    def on_late_result(self, hello: Hello, chunk: Chunk, result: ChunkResult) -> None:
        """The same for a chunk that an earlier run has left in the spool."""
        self.metrics.late.inc(self.results.write_late(hello, chunk, result))

    def on_result(self, chunk: Chunk, result: ChunkResult) -> None:
        """What the uplink calls with each answer."""
        if self.pacing is not None:
            self.pacing.answered(chunk)
        # A result that names no bundle is of a server that serves one only.
        expressions = self._expressions.get(result.bundle_id or self.bundle.bundle_id, ())
        recognised = self.results.write_recognitions(chunk, result, expressions)
        self.figures.faces_recognised += recognised
        self.metrics.recognised.inc(recognised)
        now_s = time.monotonic()
        if self._uplink is not None and now_s - self._wire_event_s >= WIRE_EVENT_S:
            self._wire_event_s = now_s
            self._note_wire(self._uplink)
            self.results.write("wire", wire_bytes=self.figures.wire_bytes)

    def _read(self, frames: Iterator[Frame | Gap]) -> Frame | Gap | None:
        """Reader: the next frame; None at the source's end."""
        return None if self._stopping else next(frames, None)

    def _step(self, frame: Frame | Gap, laps: Laps | None) -> list[Chunk]:
        """Worker: the chunks that a frame completes."""
        if isinstance(frame, Gap):
            # What was seen does not wait for a camera that may never come back.
            self.encoder.tracker.forget()
            return self._last()
        start_s = time.thread_time()
        chunks = self._changed()
        faces = self.encoder.encode(frame.image, round(frame.t_s * 1000), laps)
        stages = laps.stages if laps is not None else ()
        chunks += self.chunker.add(FrameTime(frame.index, frame.t_s, stages), faces)
        self._count_frame(len(faces), time.thread_time() - start_s)
        return chunks

    def _changed(self) -> list[Chunk]:
        """Worker: change to the bundle that is ready, if one is; the last chunks before it."""
        ready, self._next = self._next, None
        if ready is None:
            return []
        self.bundle, self.encoder.coder = ready
        self.metrics.bundle_changes.inc()
        _log.info("encoding with bundle %s from now on", self.bundle.bundle_id[:12])
        return self.chunker.change(self.bundle)

    def _last(self) -> list[Chunk]:
        start_s = time.thread_time()
        chunks = self.chunker.flush()
        self.figures.cpu_s += time.thread_time() - start_s
        return chunks

    async def _send(self, chunks: list[Chunk]) -> None:
        assert self._uplink is not None  # noqa: S101  # set by run
        for chunk in chunks:
            self.figures.faces_sent += len(chunk.frames)
            self.figures.payload_bytes += len(chunk.payload)
            self.metrics.payload_bytes.inc(len(chunk.payload))
            self.metrics.layer_bytes.inc(sum(map(len, chunk.layers)))
            if self.source.live:
                self._uplink.offer(chunk)
            else:
                await self._uplink.put(chunk)

    def _count_frame(self, faces: int, cpu_s: float) -> None:
        self.figures.frames += 1
        self.figures.cpu_s += cpu_s
        self.metrics.frames.inc()
        self.metrics.faces.inc(faces)
        self.metrics.tracks.set(faces)
        self.metrics.look_twice_until(self.encoder.looked_twice)
        self.metrics.observe_frame(cpu_s)
        self._count_drops()

    def _count_drops(self) -> None:
        lost_frames = CAMERA_NEWER if self.source.live else UNREADABLE
        self.metrics.drop_until(lost_frames, self.source.dropped)
        self.metrics.drop_until(MAX_FACES, self.encoder.tracker.ignored)
        self.metrics.drop_until(RATE_CONTROL, self.encoder.left_out)
        for code, faces in self.chunker.dropped.items():
            self.metrics.drop_until(code, faces)

    def _note_wire(self, uplink: Uplink) -> None:
        self.figures.wire_bytes = uplink.wire_bytes
        self.metrics.wire_bytes.set(self.figures.wire_bytes or 0)
