"""Devices that send JPEG faces in unary calls, each on its connection, some calls at a time."""

import asyncio
from collections.abc import Sequence

import grpc

from benchmarks.devices import OPTIONS, PATIENCE_S, Load, Pace, Start, now
from benchmarks.jpeg_service import METHOD
from mien.v1 import recognition_pb2 as pb

# With 200 devices far more wait than any batch takes; more would only wait longer.
CALLS_A_DEVICE = 4


async def drive(address: str, files: Sequence[bytes], pace: Pace) -> tuple[Load, float]:
    """As benchmarks.devices.drive; a face is a call."""
    load, start = Load(), Start(pace)
    async with asyncio.TaskGroup() as group:
        for number in range(pace.devices):
            group.create_task(_device(address, files, load, start, number))
    return load, now() - start.at_s


async def _device(
    address: str, files: Sequence[bytes], load: Load, start: Start, number: int
) -> None:
    pace = start.pace
    async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
        await channel.channel_ready()
        recognise = unary(channel)
        begin_s = await start.begin_s(number)
        calls = CALLS_A_DEVICE if pace.pause_s == 0 else 1
        async with asyncio.TaskGroup() as group:
            for _ in range(calls):
                group.create_task(_call(recognise, files, load, pace, begin_s))


def unary(
    channel: grpc.aio.Channel,
) -> "grpc.aio.UnaryUnaryMultiCallable[pb.EncodedChunk, pb.Recognition]":
    """The service's one method."""
    return channel.unary_unary(
        METHOD,
        request_serializer=pb.EncodedChunk.SerializeToString,
        response_deserializer=pb.Recognition.FromString,
    )


async def _call(
    recognise: "grpc.aio.UnaryUnaryMultiCallable[pb.EncodedChunk, pb.Recognition]",
    files: Sequence[bytes],
    load: Load,
    pace: Pace,
    begin_s: float,
) -> None:
    seq, next_s = 0, begin_s
    while max(now(), next_s) < begin_s + pace.seconds:
        await asyncio.sleep(max(next_s - now(), 0))
        seq += 1
        sent_s = now()
        await recognise(
            pb.EncodedChunk(seq=seq, payload=files[seq % len(files)]), timeout=PATIENCE_S
        )
        load.latencies_s.append(now() - sent_s)
        load.faces += 1
        next_s += pace.pause_s
