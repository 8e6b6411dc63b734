"""When the devices of a benchmark begin, and how the face they see moves."""

import asyncio
from dataclasses import astuple

import numpy as np

from benchmarks.devices import Pace, Start, now
from trainer.evaluate import WALK_PX, walking


async def test_no_device_begins_before_the_last_has_its_stream() -> None:
    start = Start(Pace(3, seconds=1.0, pause_s=0.3))
    last = asyncio.Event()

    async def device(number: int) -> float:
        if number == 1:
            await last.wait()
        return await start.begin_s(number)

    async with asyncio.TaskGroup() as group:
        devices = [group.create_task(device(number)) for number in range(3)]
        await asyncio.sleep(0)  # the others are at the barrier by then
        assert not any(task.done() for task in devices)
        connected_s = now()
        last.set()
    begins = np.array([task.result() for task in devices])
    assert begins[0] >= connected_s
    np.testing.assert_allclose(begins - begins[0], [0.0, 0.1, 0.2])


def test_a_box_walks_by_a_pixel_at_most_and_turns_back() -> None:
    boxes = np.array([astuple(box) for box in walking(5_000)])
    assert np.abs(np.diff(boxes, axis=0)).max() == 1
    assert (boxes[:, 2] == boxes[:, 3]).all(), "the edge's boxes are as wide as high"
    assert (np.ptp(boxes, axis=0) <= 2 * WALK_PX).all()
    assert (np.ptp(boxes, axis=0) > WALK_PX).all()
