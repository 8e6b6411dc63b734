"""Viewable faces: only where the operator has said so."""

import asyncio
import struct
import zlib
from pathlib import Path

import grpc
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cloud_recognizer.png import encode_grey
from mien.bundle import Bundle
from mien.messages.downward import RequestLayers
from mien.v1 import recognition_pb2 as pb
from tests.support.recognizer import Device, hello, payload, running_recognizer
from tests.support.tiny_bundle import ENHANCEMENT


def decode_png(data: bytes) -> NDArray[np.uint8]:
    """Read an 8-bit grey PNG without filters, checking every chunk's CRC."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, position = {}, 8
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + size]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + size)
        assert checksum == zlib.crc32(kind + body)
        chunks[kind] = body
        position += 12 + size
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *kind_of_picture = struct.unpack(">II5B", chunks[b"IHDR"])
    assert kind_of_picture == [8, 0, 0, 0, 0]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return rows[:, 1:]


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 70), st.integers(1, 70))))
def test_a_png_holds_the_picture_it_was_made_from(image: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(decode_png(encode_grey(image)), image)


@pytest.mark.parametrize("image", [np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.float32)])
def test_a_png_of_anything_but_grey_bytes_is_refused(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W\)"):
        encode_grey(image)


async def test_reconstruction_is_refused_by_default(bundles: Path, bundle: Bundle) -> None:
    async with running_recognizer(bundles) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Reconstruct(pb.ReconstructRequest(payload=payload(bundle)))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "allow_reconstruction" in (caught.value.details() or "")


async def test_a_face_is_what_the_synthesis_transform_makes_of_its_symbols(
    bundles: Path, bundle: Bundle
) -> None:
    chunk = payload(bundle, faces=3, track_id=5)
    async with running_recognizer(bundles, allow_reconstruction=True) as running:
        response = await running.stub.Reconstruct(pb.ReconstructRequest(payload=chunk))
    faces = bundle.codec().decode(chunk)
    synthesis = ort.InferenceSession(bundle.path("synthesis.onnx"))
    inputs = {
        "symbols": np.stack([face.symbols for face in faces]),
        "level": np.array([face.level for face in faces], np.int32),
        "enhancement": np.zeros((3, *ENHANCEMENT), np.int32),
    }
    pictures = np.asarray(synthesis.run(None, inputs)[0])
    assert [(made.index, made.time_ms, made.track_id) for made in response.faces] == [
        (0, 0, 5),
        (1, 40, 5),
        (2, 80, 5),
    ]
    for made, picture in zip(response.faces, pictures[:, 0], strict=True):
        np.testing.assert_array_equal(decode_png(made.png), picture)


async def test_a_damaged_chunk_is_an_invalid_argument(bundles: Path, bundle: Bundle) -> None:
    async with running_recognizer(bundles, allow_reconstruction=True) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Reconstruct(pb.ReconstructRequest(payload=payload(bundle)[:-3]))
        assert running.sample("rpc_errors_total", code="checksum_mismatch") == 1
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def layers_of(bundle: Bundle, chunk: bytes, faces: int) -> tuple[bytes, ...]:
    """Layers of the first face of a chunk of so many."""
    enhancement = np.arange(np.prod(ENHANCEMENT), dtype=np.int32).reshape(ENHANCEMENT) % 5
    return tuple(bundle.layers().encode(chunk, [enhancement] + [None] * (faces - 1)))


async def test_layers_change_the_picture_and_are_said(bundles: Path, bundle: Bundle) -> None:
    chunk = payload(bundle, faces=2)
    async with running_recognizer(bundles, allow_reconstruction=True) as running:
        bare = await running.stub.Reconstruct(pb.ReconstructRequest(payload=chunk))
        request = pb.ReconstructRequest(payload=chunk, layers=layers_of(bundle, chunk, 2))
        full = await running.stub.Reconstruct(request)
    assert [face.layers for face in bare.faces] == [0, 0]
    assert [face.layers for face in full.faces] == [2, 0]
    assert full.faces[0].png != bare.faces[0].png
    assert full.faces[1].png == bare.faces[1].png


async def test_layers_of_another_chunk_are_refused(bundles: Path, bundle: Bundle) -> None:
    layers = layers_of(bundle, payload(bundle, seed=1), 3)
    async with running_recognizer(bundles, allow_reconstruction=True) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Reconstruct(
                pb.ReconstructRequest(payload=payload(bundle), layers=layers)
            )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_next_chunk_of_a_device_is_asked_for(bundles: Path, bundle: Bundle) -> None:
    chunk = payload(bundle, faces=2)
    async with running_recognizer(bundles, allow_reconstruction=True) as running:
        device = Device(running.stub)
        await device.open(hello(bundle, "door"))
        looking = asyncio.ensure_future(
            running.stub.Reconstruct(pb.ReconstructRequest(device_id="door"))
        )
        assert await device.read() == RequestLayers()
        await device.send(1, chunk)  # coded before the request came: it has no layers
        await device.acknowledged(1)
        await device.send(2, chunk, layers_of(bundle, chunk, 2))
        response = await looking
        assert [face.layers for face in response.faces] == [2, 0]
        assert (await device.close()).results
        assert running.sample("layer_bytes_total") > 0


async def test_a_device_that_is_not_there_cannot_be_looked_at(bundles: Path) -> None:
    async with running_recognizer(bundles, allow_reconstruction=True) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Reconstruct(pb.ReconstructRequest(device_id="nobody"))
        assert running.sample("rpc_errors_total", code="layers_missing") == 1
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_layers_that_do_not_come_are_not_waited_for_for_ever(
    bundles: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_recognizer.servicer.LAYERS_TIMEOUT_S", 0.05)
    async with running_recognizer(bundles, allow_reconstruction=True) as running:
        device = Device(running.stub)
        await device.open(hello(bundle, "door"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Reconstruct(pb.ReconstructRequest(device_id="door"))
        assert "no layers came" in (caught.value.details() or "")
        await device.close()
