"""Sources that fail, and sources that do not wait, through the whole device."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import pytest

from edge_encoder.capture.frames import Frame, Gap
from edge_encoder.chunker import Chunk, Chunker
from edge_encoder.detector import Detector
from edge_encoder.faces import FaceEncoder
from edge_encoder.metrics import UPLINK_FULL, Metrics
from edge_encoder.pipeline import Pipeline
from edge_encoder.results import ResultWriter, open_results
from edge_encoder.servers import Servers
from edge_encoder.uplink import Uplink, UplinkSettings
from mien.bundle import Bundle
from mien.errors import SourceError, UnavailableError
from mien.messages.downward import Acknowledgement, Credits, Welcome
from mien.messages.results import ChunkResult, ItemStatus
from mien.messages.upward import EncodedChunk
from tests.support.moving_face import walk
from tests.support.recognizer import hello, running_recognizer
from tests.support.scripted_server import DeviceStream, scripted_server
from tests.support.uplinks import serving

PATIENCE_S = 60.0


class ScriptedSource:
    """Gives the frames of a walk, with a gap perhaps, and then fails."""

    name = "scripted"
    stills = False
    dropped = 0

    def __init__(
        self, frames: int, *, live: bool, failure: str = "", gap_before: int | None = None
    ) -> None:
        self.live = live
        self._gap_before = gap_before
        self.at_end: Callable[[], object] = lambda: None
        self._frames, self._failure = frames, failure

    def __iter__(self) -> Iterator[Frame | Gap]:
        pictures = walk(min(self._frames, 12))
        for index in range(self._frames):
            if index == self._gap_before:
                yield Gap()
            yield Frame(index, index / 25, pictures[index % len(pictures)])
        self.at_end()
        if self._failure:
            raise SourceError(self._failure)

    def interrupt(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class StallingSource(ScriptedSource):
    """Gives some frames of a walk, and the next one only when it is told to, or interrupted."""

    def __init__(self, frames: int) -> None:
        super().__init__(frames, live=True)
        self.goes_on = threading.Event()
        self.was_told = False
        self.at_end = self._stall

    def _stall(self) -> None:
        self.was_told = self.goes_on.wait(PATIENCE_S)

    def interrupt(self) -> None:
        self.goes_on.set()


def pipeline(
    source: ScriptedSource, detector: Detector, bundle: Bundle, results: ResultWriter
) -> Pipeline:
    encoder = FaceEncoder(detector, bundle)
    chunker = Chunker(bundle.codec(), 2, 60.0)
    return Pipeline(source, encoder, chunker, results, bundle, Metrics())


async def test_what_a_source_gave_before_it_failed_is_recognised(
    bundle: Bundle, detector: Detector, tmp_path: Path
) -> None:
    source = ScriptedSource(5, live=True, failure="the camera fell down")
    with open_results(str(tmp_path / "results")) as results:
        running = pipeline(source, detector, bundle, results)
        async with running_recognizer(bundle.folder) as server:
            servers, settings = Servers((f"127.0.0.1:{server.serving.port}",)), UplinkSettings()
            async with Uplink(
                *(servers, settings, hello(bundle), running.on_result, running.metrics)
            ) as uplink:
                with pytest.raises(SourceError, match="the camera fell down"):
                    await running.run(uplink)
    assert running.figures.faces_recognised == running.figures.faces_sent == 5


async def test_what_was_seen_before_a_camera_was_lost_is_sent_and_not_followed_on(
    bundle: Bundle, detector: Detector, tmp_path: Path
) -> None:
    source = ScriptedSource(6, live=True, gap_before=3)
    results_file = tmp_path / "results"
    with open_results(str(results_file)) as results:
        running = pipeline(source, detector, bundle, results)
        async with running_recognizer(bundle.folder) as server:
            servers, settings = Servers((f"127.0.0.1:{server.serving.port}",)), UplinkSettings()
            async with Uplink(
                *(servers, settings, hello(bundle), running.on_result, running.metrics)
            ) as uplink:
                await running.run(uplink)
    faces = [json.loads(line) for line in results_file.read_text().splitlines()]
    faces = [face for face in faces if face["event"] == "recognition"]
    # Chunks are of two faces: the third face did not wait for the fourth.
    assert [face["chunk_faces"] for face in faces] == [2, 2, 1, 2, 2, 1]
    assert [face["track_id"] for face in faces] == [0, 0, 0, 1, 1, 1]


async def test_a_camera_does_not_wait_for_the_network_and_its_losses_are_counted(
    bundle: Bundle, detector: Detector, tmp_path: Path
) -> None:
    all_read = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def busy(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(Welcome(bundle.bundle_id, 0, 0, 0, 16384, 64))
        await all_read.wait()
        await stream.write(Credits(10))
        while isinstance(message := await stream.read(), EncodedChunk):
            result = ChunkResult(message.seq, ItemStatus.RESULT)
            await stream.write(result, Acknowledgement(message.seq))

    source = ScriptedSource(12, live=True)
    source.at_end = lambda: loop.call_soon_threadsafe(all_read.set)
    with open_results(str(tmp_path / "results")) as results:
        running = pipeline(source, detector, bundle, results)
        async with scripted_server(busy) as (address, streams):
            servers, settings = Servers((address,)), UplinkSettings(queue_chunks=2)
            async with Uplink(
                *(servers, settings, hello(bundle), running.on_result, running.metrics)
            ) as uplink:
                await running.run(uplink)
    # Twelve frames are six chunks of two; the two newest were kept.
    assert running.metrics.drops[UPLINK_FULL] == 8
    assert [item.seq for item in streams[0].chunks] == [5, 6]
    newest = [bundle.codec().decode(item.payload)[0].time_ms for item in streams[0].chunks]
    assert newest == [8 * 40, 10 * 40]


async def test_a_camera_whose_server_is_gone_for_good_ends_the_run(
    bundle: Bundle, detector: Detector, tmp_path: Path
) -> None:
    source = ScriptedSource(1_000_000, live=True)
    with open_results(str(tmp_path / "results")) as results:
        running = pipeline(source, detector, bundle, results)
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(running_recognizer(bundle.folder))
            servers, settings = (
                Servers((f"127.0.0.1:{server.serving.port}",)),
                UplinkSettings(give_up_s=0.1),
            )
            async with Uplink(
                *(servers, settings, hello(bundle), running.on_result, running.metrics)
            ) as uplink:
                await uplink.ready()
                await stack.aclose()
                with pytest.raises(UnavailableError):
                    await running.run(uplink)


async def test_what_a_camera_gave_before_it_stalls_is_sent_when_it_has_waited_long_enough(
    bundle: Bundle, detector: Detector, tmp_path: Path
) -> None:
    source, now_s = StallingSource(3), 10.0
    sent_at_s: list[float] = []
    loop = asyncio.get_running_loop()

    def clock() -> float:
        return now_s

    def on_result(chunk: Chunk, result: ChunkResult) -> None:
        sent_at_s.append(now_s)
        if len(sent_at_s) == 2:
            source.goes_on.set()

    async def pass_time() -> None:
        """The clock stands still until many waits of a face for the next one have ended."""
        nonlocal now_s
        while running.figures.frames < 3:
            await asyncio.sleep(0.01)  # for the encoder's thread
        frozen_until_s = loop.time() + 5 * running.max_chunk_s
        while loop.time() < frozen_until_s:
            await asyncio.sleep(0.01)  # real time passes, that of the chunker does not
        assert running.figures.faces_sent == 2, "not before its time"
        now_s += running.max_chunk_s

    with open_results(str(tmp_path / "results")) as results:
        running = pipeline(source, detector, bundle, results)
        running.chunker = Chunker(bundle.codec(), 2, 60.0, clock=clock)
        running.max_chunk_s = 0.05
        async with (
            scripted_server(serving(bundle)) as (address, _),
            Uplink(
                *(Servers((address,)), UplinkSettings(), hello(bundle), on_result, running.metrics)
            ) as uplink,
        ):
            await asyncio.gather(running.run(uplink), pass_time())
    assert source.was_told, "or it has waited in vain for what it gave to be sent"
    assert sent_at_s == [10.0, 10.0 + running.max_chunk_s], "while the source gave nothing"
