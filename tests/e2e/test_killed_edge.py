"""A device that is killed in the middle of a stream, with a spool, and started again."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from edge_encoder.spool.command import contents
from mien.bundle import Bundle
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.services import PATIENCE_S, edge, serving

# At its own speed, in small chunks: there is a middle to be killed in.
SETTINGS = ("--pace", "true", "--chunk_faces", "2", "--device_id", "door")
LATE = ("--spool_chunks_per_s", "100")
WAITING_CHUNKS = 6

Face = tuple[int, int, int]  # epoch, seq and index: what a consumer knows a face by


@contextmanager
def watching(address: str) -> Iterator[list[Face]]:
    """Every face that a consumer sees."""
    seen: list[Face] = []
    with grpc.insecure_channel(address) as channel:
        call = RecognitionServiceStub(channel).WatchRecognitions(pb.WatchRecognitionsRequest())

        def read() -> None:
            try:
                for chunk in call:
                    seen.extend((chunk.epoch, chunk.seq, face.index) for face in chunk.recognitions)
            except grpc.RpcError:
                return

        call.initial_metadata()  # from when this is there, nothing is missed
        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield seen
        finally:
            call.cancel()
            thread.join()


def until(holds: Any) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_every_face_that_a_killed_device_had_accepted_is_seen_exactly_once(
    clip: Path, bundle: Bundle, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    arguments = (*SETTINGS, "--spool", str(spool))
    with (
        serving(bundle.folder, tmp_path / "cloud.log") as cloud,
        watching(cloud.address) as seen,
    ):
        first = edge(clip, cloud.address, bundle.folder, tmp_path / "first.log", *arguments)
        with first:
            while (event := first.next_event(PATIENCE_S)) is not None:
                if event["event"] == "recognition":
                    break
            assert event is not None, first.last_words()
            # It hears no more, and does not know what the server has: some of it is in flight.
            cloud.process.process.send_signal(signal.SIGSTOP)
            until(lambda: contents(spool)["chunks"] >= WAITING_CHUNKS)
            first.process.kill()
            assert first.wait(PATIENCE_S) == -signal.SIGKILL
        left = contents(spool)
        assert left["chunks"] >= WAITING_CHUNKS
        cloud.process.process.send_signal(signal.SIGCONT)

        second = edge(
            clip, cloud.address, bundle.folder, tmp_path / "second.log", *arguments, *LATE
        )
        with second:
            events = []
            while (event := second.next_event(PATIENCE_S)) is not None:
                events.append(event)
            assert second.wait(PATIENCE_S) == 0, second.last_words()
        found = contents(spool)
        assert found["faces"] == 0
        accepted = found["books"]["accepted"]["faces"]
        assert found["books"] == {
            "accepted": found["books"]["accepted"],
            "settled": found["books"]["accepted"],
        }
        until(lambda: len(seen) >= accepted)
    assert set(Counter(seen).values()) == {1}
    assert len(seen) == accepted
    (epoch,) = left["epochs"]
    late = [event for event in events if event["event"] == "late_recognition"]
    assert {event["epoch"] for event in late} <= {epoch["epoch"]}
    # What the server had settled before it heard of the kill comes as no answer, but is counted.
    summary = events[-1]
    assert len(late) + summary["drops"].get("unanswered", 0) == left["faces"]
    assert summary["faces_recognised"] == summary["faces_sent"]
