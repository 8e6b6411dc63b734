"""What one device may send over time."""

from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_recognizer.rate_limit import RateLimits, RateSettings
from mien.bundle import Bundle
from mien.messages.downward import Credits
from tests.support.recognizer import (
    Device,
    hello,
    payload,
    retry_delay_s,
    running_recognizer,
)


class Clock:
    """Time that a test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@given(
    st.floats(0.1, 100),
    st.floats(0.1, 10),
    st.lists(st.tuples(st.floats(0, 2), st.integers(0, 50)), max_size=60),
)
def test_who_waits_as_told_sends_no_more_than_the_rate_and_one_burst(
    faces_per_s: float, burst_s: float, sends: list[tuple[float, int]]
) -> None:
    clock = Clock()
    rate = RateLimits(RateSettings(0, faces_per_s, burst_s), 1, clock).of("door")
    sent = 0
    for pause_s, faces in sends:
        clock.now_s += pause_s + rate.wait_s()
        assert rate.wait_s() <= 1e-6
        allowed = max(faces_per_s * burst_s, 1) + faces_per_s * clock.now_s
        assert sent <= allowed * (1 + 1e-9) + 1e-6
        rate.note_faces(faces)
        sent += faces


def test_without_a_bound_nobody_waits() -> None:
    rate = RateLimits(RateSettings(), 1).of("door")
    for _ in range(1000):
        rate.note_chunk()
        rate.note_faces(64)
    assert rate.wait_s() == 0


def test_devices_are_apart_and_the_one_longest_away_is_forgotten() -> None:
    clock = Clock()
    limits = RateLimits(RateSettings(1, 0, 1), 2, clock)
    for _ in range(5):
        limits.of("door").note_chunk()
    assert limits.of("door").wait_s() == pytest.approx(4)
    assert limits.of("yard").wait_s() == 0
    assert limits.of("door").wait_s() == pytest.approx(4)
    limits.of("gate")
    assert len(limits) == 2
    assert limits.of("door").wait_s() == pytest.approx(4)


async def test_a_device_over_its_rate_gets_its_answers_at_once_and_its_credits_later(
    bundles: Path, bundle: Bundle
) -> None:
    # In an hour one face; the burst is one, so the first chunk of three is two hours of debt.
    slow = {"device_faces_per_s": 1 / 3600, "device_burst_s": 0.01}
    async with running_recognizer(bundles, **slow) as running:
        device = Device(running.stub)
        welcome = await device.open(hello(bundle, "door"))
        assert welcome.credits == 8
        for seq in range(1, 4):
            await device.send(seq, payload(bundle, seed=seq))
        answers = await device.close()
        assert [result.seq for result in answers.results] == [1, 2, 3]
        assert answers.acknowledged[-1] == 3
        assert not any(isinstance(message, Credits) for message in answers.messages)
        assert running.sample("rate_limited_total", how="credits_withheld") >= 1
        again = Device(running.stub)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await again.open(hello(bundle, "door", epoch=2))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_delay_s(raised.value) > 3600
        assert running.sample("rate_limited_total", how="stream_refused") == 1
        assert running.sample("rpc_errors_total", code="rate_limited") == 1
        await Device(running.stub).open(hello(bundle, "yard"))  # another one is not held up


async def test_withheld_credits_come_when_the_debt_is_paid(bundles: Path, bundle: Bundle) -> None:
    quick = {"device_faces_per_s": 20.0, "device_burst_s": 0.05}
    async with running_recognizer(bundles, **quick) as running:
        device = Device(running.stub)
        await device.open(hello(bundle, "door"))
        for seq in range(1, 9):  # all credits
            await device.send(seq, payload(bundle, seed=seq))
        given_back = 0
        while given_back < 8:
            message = await device.read()
            assert message is not None
            given_back += message.chunks if isinstance(message, Credits) else 0
        assert given_back == 8
        assert running.sample("rate_limited_total", how="credits_withheld") >= 1
        await device.send(9, payload(bundle, seed=9))
        assert [result.seq for result in (await device.close()).results] == [9]
