"""What is held for watchers that come back: bounded in time, messages and bytes."""

from pathlib import Path

from cloud_recognizer.config import CloudConfig
from cloud_recognizer.hub.ring import Ring


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def ring(clock: Clock, max_s: float = 10, max_chunks: int = 4, max_bytes: int = 1000) -> Ring:
    return Ring(max_s=max_s, max_chunks=max_chunks, max_bytes=max_bytes, clock=clock)


def held(ring: Ring) -> list[int]:
    return [item.sequence for item in ring.after(0, 1000)]


def test_by_default_nothing_is_held_and_sixty_seconds_with_nats() -> None:
    assert CloudConfig(Path()).held_s == 0
    assert CloudConfig(Path(), nats="nats://localhost:4222").held_s == 60
    assert CloudConfig(Path(), nats="nats://localhost:4222", retention_s=10).held_s == 10


def test_the_oldest_goes_beyond_any_bound() -> None:
    clock = Clock()
    by_count, by_bytes = ring(clock), ring(clock, max_bytes=25, max_chunks=99)
    for sequence in range(1, 7):
        by_count.append(sequence, b"0123456789")
        by_bytes.append(sequence, b"0123456789")
    assert (held(by_count), by_count.floor) == ([3, 4, 5, 6], 2)
    assert (held(by_bytes), by_bytes.floor) == ([5, 6], 4)
    by_bytes.append(7, bytes(26))
    assert (held(by_bytes), by_bytes.floor) == ([], 7)
    by_bytes.append(8, bytes(25))
    assert held(by_bytes) == [8]


def test_what_has_had_its_time_goes_and_says_when() -> None:
    clock = Clock()
    some = ring(clock)
    assert some.next_expiry_in_s() is None
    some.append(1, b"a", age_s=4)
    clock.now_s += 2
    some.append(2, b"b")
    assert some.next_expiry_in_s() == 4
    clock.now_s += 4
    assert [item.sequence for item in some.expire()] == [1]
    assert (held(some), some.floor) == ([2], 1)
    clock.now_s += 60
    assert [item.sequence for item in some.expire()] == [2]
    assert (held(some), some.floor, len(some)) == ([], 2, 0)


def test_after_gives_what_follows_and_no_more_than_asked() -> None:
    some = ring(Clock(), max_chunks=100)
    for sequence in (3, 4, 8, 9):
        some.append(sequence, b"x")
    assert [item.sequence for item in some.after(4, 100)] == [8, 9]
    assert [item.sequence for item in some.after(5, 1)] == [8]
    assert some.after(9, 100) == []
    some.begin(20)
    assert (some.after(0, 100), some.floor) == ([], 20)
