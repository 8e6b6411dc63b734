"""How much one device may send over time: token buckets, which outlive its streams.

A credit is the right to send a chunk, so a device that is over its rate gets its credits back
later. The buckets go below zero, for what a chunk costs is known after it came; a device in debt
waits until it is paid.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class RateSettings:
    """Of one device. 0 is no bound. burst_s: seconds of its rate that a bucket holds."""

    chunks_per_s: float = 0.0
    faces_per_s: float = 0.0
    burst_s: float = 5.0


class _Bucket:
    def __init__(self, rate_per_s: float, burst_s: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        # At least one: a rate below it would never let anything pass.
        self._capacity = max(rate_per_s * burst_s, 1.0)
        self._tokens = self._capacity
        self._filled_s = now_s

    def _fill(self, now_s: float) -> None:
        gained = (now_s - self._filled_s) * self._rate_per_s
        self._tokens = min(self._tokens + gained, self._capacity)
        self._filled_s = now_s

    def take(self, count: int, now_s: float) -> None:
        self._fill(now_s)
        self._tokens -= count

    def wait_s(self, now_s: float) -> float:
        if not self._rate_per_s:
            return 0.0
        self._fill(now_s)
        return max(-self._tokens, 0.0) / self._rate_per_s


class DeviceRate:
    """One device's buckets."""

    def __init__(self, settings: RateSettings, clock: Callable[[], float]) -> None:
        self._clock = clock
        now_s = clock()
        self._chunks = _Bucket(settings.chunks_per_s, settings.burst_s, now_s)
        self._faces = _Bucket(settings.faces_per_s, settings.burst_s, now_s)

    def note_chunk(self) -> None:
        """A chunk came."""
        self._chunks.take(1, self._clock())

    def note_faces(self, faces: int) -> None:
        """So many faces were recognised."""
        self._faces.take(faces, self._clock())

    def wait_s(self) -> float:
        """Seconds until the device may send more; 0 where it may now."""
        now_s = self._clock()
        return max(self._chunks.wait_s(now_s), self._faces.wait_s(now_s))


class RateLimits:
    """The buckets of all devices, at most `max_devices`; the one longest not asked for goes.

    Who makes up many device ids to be forgotten needs a certificate for each.
    """

    def __init__(
        self,
        settings: RateSettings,
        max_devices: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._max_devices = max_devices
        self._clock = clock
        self._devices: OrderedDict[str, DeviceRate] = OrderedDict()

    def __len__(self) -> int:
        return len(self._devices)

    def of(self, device_id: str) -> DeviceRate:
        """The device's buckets, full ones for a new device."""
        rate = self._devices.pop(device_id, None) or DeviceRate(self._settings, self._clock)
        self._devices[device_id] = rate
        if len(self._devices) > self._max_devices:
            self._devices.popitem(last=False)
        return rate
