"""What is remembered of devices, and for how many."""

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cloud_recognizer.metrics import Metrics
from cloud_recognizer.sessions import Session, Sessions
from mien.errors import MienError, OverloadedError, ShareTakenError, SupersededError
from mien.messages.upward import Hello


class Stream:
    ended: MienError | None = None

    def end(self, error: MienError) -> None:
        self.ended = error


def sessions_of(
    metrics: Metrics | None = None, *, max_streams: int = 2, each: int = 4, capacity: int = 8
) -> Sessions:
    return Sessions(
        metrics or Metrics(), max_streams=max_streams, max_device_streams=each, capacity=capacity
    )


def hello(device_id: str, epoch: int = 1) -> Hello:
    return Hello(device_id, epoch, 0, ())


def test_a_session_outlives_its_stream() -> None:
    sessions = sessions_of(capacity=2)
    first, second = Stream(), Stream()
    session = sessions.enter(hello("door"), first)
    session.acknowledged_seq = 5
    sessions.leave(session, first)
    assert sessions.enter(hello("door"), second).acknowledged_seq == 5
    assert first.ended is None


def test_the_session_longest_without_a_stream_is_forgotten_and_counted() -> None:
    metrics = Metrics()
    sessions = sessions_of(metrics, capacity=2)
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
    sessions = sessions_of(capacity=2)
    first, second = Stream(), Stream()
    sessions.enter(hello("door", 1), first).acknowledged_seq = 3
    assert sessions.enter(hello("door", 2), second).acknowledged_seq == 0
    assert first.ended is None
    assert sessions.streams == 2


def test_a_newer_stream_takes_the_place_of_the_older_even_when_all_are_taken() -> None:
    sessions = sessions_of(max_streams=1, capacity=1)
    first, second = Stream(), Stream()
    session = sessions.enter(hello("door"), first)
    assert sessions.enter(hello("door"), second) is session
    assert isinstance(first.ended, SupersededError)
    with pytest.raises(OverloadedError, match="1 devices"):
        sessions.enter(hello("gate"), Stream())
    sessions.leave(session, first)  # late, and must not free the second one's place
    assert sessions.streams == 1
    sessions.leave(session, second)
    assert sessions.streams == 0


def turned_away(metrics: Metrics, bound: str) -> float | None:
    return metrics.registry.get_sample_value("mien_cloud_turned_away_total", {"bound": bound})


def test_one_device_gets_no_more_streams_than_one_may_have_whatever_its_epochs() -> None:
    metrics = Metrics()
    sessions = sessions_of(metrics, max_streams=8, each=3)
    streams = [Stream() for _ in range(3)]
    held = [sessions.enter(hello("many", n), stream) for n, stream in enumerate(streams)]
    for epoch in (9, 1_000):
        with pytest.raises(ShareTakenError, match="3 streams"):
            sessions.enter(hello("many", epoch), Stream())
    assert turned_away(metrics, "device_streams") == 2
    sessions.enter(hello("door"), Stream())  # there is room for others
    sessions.enter(hello("many", 2), Stream())  # in place of its own, which is no more than before
    assert [stream.ended is None for stream in streams] == [True, True, False]
    sessions.leave(held[0], streams[0])
    sessions.enter(hello("many", 9), Stream())
    assert sessions.streams == 4


def test_a_late_stream_gives_way_to_a_live_one_and_never_takes_its_place() -> None:
    metrics = Metrics()
    sessions = sessions_of(metrics, max_streams=4)
    live, late, other = Stream(), Stream(), Stream()
    sessions.enter(hello("door", 7), live)
    sessions.enter(hello("door", 3), late)
    sessions.enter(hello("gate", 5), other)
    sessions.enter(hello("yard", 5), Stream())
    with pytest.raises(OverloadedError):
        sessions.enter(hello("gate", 2), Stream())
    assert late.ended is None
    sessions.enter(hello("hall", 1), Stream())
    assert isinstance(late.ended, OverloadedError)
    assert not isinstance(late.ended, ShareTakenError)
    with pytest.raises(OverloadedError):  # four live ones: none gives way
        sessions.enter(hello("roof", 1), Stream())
    assert live.ended is other.ended is None
    assert sessions.streams == 4
    assert turned_away(metrics, "gave_way") == 1
    assert turned_away(metrics, "streams") == 2


def test_a_device_that_comes_back_as_a_new_epoch_takes_the_place_of_its_dead_stream() -> None:
    sessions = sessions_of(max_streams=2)
    dead, other = Stream(), Stream()
    sessions.enter(hello("door", 1), dead)
    sessions.enter(hello("gate", 1), other)
    sessions.enter(hello("door", 2), Stream())
    assert isinstance(dead.ended, OverloadedError)
    assert other.ended is None
    assert sessions.streams == 2


class Streams(RuleBasedStateMachine):
    """Whatever comes and goes: the bounds hold, and only what is late gives way."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions = sessions_of(max_streams=5, each=3, capacity=6)
        self.open: dict[tuple[str, int], tuple[Session, Stream]] = {}

    @rule(device=st.sampled_from("abcde"), epoch=st.integers(0, 5))
    def enter(self, device: str, epoch: int) -> None:
        newest = {name: max(n for d, n in self.open if d == name) for name, _ in self.open}
        stream = Stream()
        try:
            session = self.sessions.enter(hello(device, epoch), stream)
        except OverloadedError:
            return
        gone = {key for key, (_, other) in self.open.items() if other.ended is not None}
        for key in gone - {(device, epoch)}:
            assert key[1] < newest[key[0]] or (key[0] == device and key[1] < epoch)
        self.open = {key: held for key, held in self.open.items() if key not in gone}
        self.open[device, epoch] = (session, stream)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.open:
            key = data.draw(st.sampled_from(sorted(self.open)))
            self.sessions.leave(*self.open.pop(key))

    @invariant()
    def bounds_hold(self) -> None:
        assert self.sessions.streams == len(self.open) <= 5
        assert all(count <= 3 for count in Counter(device for device, _ in self.open).values())


TestStreams = Streams.TestCase
