"""Answers that wait for labels: how many, and how long."""

import pytest
from prometheus_client import Counter

from cloud_recognizer.accuracy.recent_answers import Answer, ChunkKey, RecentAnswers
from cloud_recognizer.metrics import ANSWERS_FULL, Metrics

ANSWER = Answer("fear", 0.5)


@pytest.fixture
def dropped() -> Counter:
    return Metrics().dropped.labels(ANSWERS_FULL)


def keep(recent: RecentAnswers, now_s: float, seq: int, faces: int = 1) -> ChunkKey:
    key = ChunkKey("door", 1, seq)
    recent.keep(now_s, key, "b" * 64, "other", ("fear",), [ANSWER] * faces)
    return key


def test_an_answer_is_forgotten_when_its_time_is_over(dropped: Counter) -> None:
    recent = RecentAnswers(10.0, 100, dropped)
    early, late = keep(recent, 0.0, 1), keep(recent, 4.0, 2, faces=3)
    chunk = recent.of(9.9, early)
    assert chunk is not None
    assert chunk.answers == [ANSWER]
    assert recent.of(10.0, early) is None
    assert recent.of(10.0, late) is not None
    assert recent.faces == 3
    assert recent.expire(11.0) == 3.0
    assert recent.expire(14.0) == 10.0
    assert recent.faces == 0
    assert dropped._value.get() == 0


def test_the_oldest_go_when_there_is_no_room_and_are_counted(dropped: Counter) -> None:
    recent = RecentAnswers(10.0, 64, dropped)
    keys = [keep(recent, 0.0, seq, faces=20) for seq in range(1, 101)]
    assert recent.faces == 60
    assert [recent.of(1.0, key) is not None for key in keys[96:]] == [False, True, True, True]
    assert dropped._value.get() == 97 * 20


def test_a_chunk_that_is_recognised_again_is_there_once(dropped: Counter) -> None:
    recent = RecentAnswers(10.0, 64, dropped)
    keep(recent, 0.0, 1, faces=5)
    key = keep(recent, 5.0, 1, faces=2)
    assert recent.faces == 2
    assert recent.of(12.0, key) is not None
