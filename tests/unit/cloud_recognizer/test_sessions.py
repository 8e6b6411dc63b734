"""What is remembered of devices, and for how many."""

import pytest

from cloud_recognizer.metrics import Metrics
from cloud_recognizer.sessions import Sessions
from mien.errors import OverloadedError
from mien.messages.upward import Hello


class Stream:
    superseded = False

    def supersede(self) -> None:
        self.superseded = True


def hello(device_id: str, epoch: int = 1) -> Hello:
    return Hello(device_id, epoch, 0, ())


def test_a_session_outlives_its_stream() -> None:
    sessions = Sessions(Metrics(), max_streams=2, capacity=2)
    first, second = Stream(), Stream()
    session = sessions.enter(hello("door"), first)
    session.acknowledged_seq = 5
    sessions.leave(session, first)
    assert sessions.enter(hello("door"), second).acknowledged_seq == 5
    assert not first.superseded


def test_the_session_longest_without_a_stream_is_forgotten_and_counted() -> None:
    metrics = Metrics()
    sessions = Sessions(metrics, max_streams=2, capacity=2)
    kept = sessions.enter(hello("kept"), Stream())  # its stream stays open
    kept.acknowledged_seq = 9
    for number in range(3):
        stream = Stream()
        session = sessions.enter(hello(f"passing{number}"), stream)
        session.acknowledged_seq = 1
        sessions.leave(session, stream)
    assert sessions.enter(hello("passing2"), Stream()).acknowledged_seq == 1
    assert sessions.enter(hello("kept"), Stream()).acknowledged_seq == 9
    forgotten = metrics.registry.get_sample_value(
        "mien_cloud_dropped_total", {"reason": "session_forgotten"}
    )
    assert forgotten == 2


def test_epochs_of_a_device_are_sessions_of_their_own() -> None:
    sessions = Sessions(Metrics(), max_streams=2, capacity=2)
    first, second = Stream(), Stream()
    sessions.enter(hello("door", 1), first).acknowledged_seq = 3
    assert sessions.enter(hello("door", 2), second).acknowledged_seq == 0
    assert not first.superseded
    assert sessions.streams == 2


def test_a_newer_stream_takes_the_place_of_the_older_even_when_all_are_taken() -> None:
    sessions = Sessions(Metrics(), max_streams=1, capacity=1)
    first, second = Stream(), Stream()
    session = sessions.enter(hello("door"), first)
    assert sessions.enter(hello("door"), second) is session
    assert first.superseded
    with pytest.raises(OverloadedError, match="1 devices"):
        sessions.enter(hello("gate"), Stream())
    sessions.leave(session, first)  # late, and must not free the second one's place
    assert sessions.streams == 1
    sessions.leave(session, second)
    assert sessions.streams == 0
