"""Enhancement layers at the edge: made when the owner's policy and a request say so, else never."""

import numpy as np
import pytest

from edge_encoder.chunker import Chunker, FrameTime
from edge_encoder.layering import Layering
from edge_encoder.steadying import AnalysedFace
from mien.bitstream import Box, EncodedFace, Limits
from mien.bundle import Bundle
from mien.layers import LayersCodec
from mien.trellis import HALF_STEPS
from tests.support.tiny_bundle import tiny_layer_tables
from trainer.schematic import schematic_faces

LEVEL = 2
BOX = Box(10, 20, 60, 64)


def faces(bundle: Bundle, tracks: list[int]) -> list[AnalysedFace]:
    """A drawn face for each of these tracks, in the order of time."""
    return [
        AnalysedFace(
            *(40 * index, track, BOX, np.zeros(bundle.tables.shape, np.int32), LEVEL),
            *(np.zeros(bundle.tables.shape, np.float32), crop),
        )
        for index, (track, crop) in enumerate(zip(tracks, schematic_faces(8), strict=False))
    ]


def chunker(bundle: Bundle, layering: Layering) -> Chunker:
    return Chunker(bundle.codec(), 8, 60.0, LEVEL, layering)


def send(chunker: Chunker, bundle: Bundle, tracks: list[int]):
    chunker.add(FrameTime(0, 0.0), faces(bundle, tracks))
    (chunk,) = chunker.flush()
    return chunk


def test_under_never_no_request_brings_layers(bundle: Bundle):
    layering = Layering("never", bundle)
    layering.request()
    assert send(chunker(bundle, layering), bundle, [1, 1]).layers == ()


def test_a_request_brings_the_layers_of_one_chunk(bundle: Bundle):
    layering = Layering("on_request", bundle)
    device = chunker(bundle, layering)
    assert send(device, bundle, [1]).layers == ()
    layering.request()
    assert len(send(device, bundle, [1]).layers) == 2
    assert send(device, bundle, [1]).layers == ()


def test_a_chunk_of_no_picture_leaves_the_request_to_the_next(bundle: Bundle):
    layering = Layering("on_request", bundle)
    device = chunker(bundle, layering)
    layering.request()
    plain = EncodedFace(0, 1, BOX, np.zeros(bundle.tables.shape, np.int32), LEVEL)
    device.add(FrameTime(0, 0.0), [plain])
    assert device.flush()[0].layers == ()
    assert len(send(device, bundle, [1]).layers) == 2


def test_layers_that_cannot_be_made_cost_the_chunk_nothing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    failed: list[str] = []
    layering = Layering("always", bundle, failed.append)
    device = chunker(bundle, layering)
    assert len(send(device, bundle, [1]).layers) == 2
    limits = Limits(max_chunk_bytes=8)
    monkeypatch.setattr(type(bundle), "layers", lambda _: LayersCodec(tiny_layer_tables(), limits))
    layering.change(bundle)
    chunk = send(device, bundle, [1, 2])
    assert chunk.layers == ()
    assert len(bundle.codec().decode(chunk.payload)) == 2
    assert failed == ["limit_exceeded"]


@pytest.mark.parametrize("model", ["analysis.onnx", "tables.npz"])
def test_a_network_that_is_no_enhancement_costs_the_chunk_nothing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, model: str
):
    failed: list[str] = []
    other, read = bundle.read(model), Bundle.read
    monkeypatch.setattr(
        Bundle, "read", lambda own, name: other if name == "enhancement.onnx" else read(own, name)
    )
    device = chunker(bundle, Layering("always", bundle, failed.append))
    chunk = send(device, bundle, [1])
    assert (len(bundle.codec().decode(chunk.payload)), chunk.layers) == (1, ())
    assert failed == ["bad_manifest"]
    monkeypatch.undo()
    assert send(device, bundle, [1]).layers == (), "it is not opened for each chunk anew"
    assert failed == ["bad_manifest"] * 2


def test_a_request_has_a_wrong_network_read_again(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Bundle, "read", lambda *_: b"no network")
    layering = Layering("on_request", bundle)
    device = chunker(bundle, layering)
    layering.request()
    assert send(device, bundle, [1]).layers == ()
    monkeypatch.undo()
    layering.request()
    assert len(send(device, bundle, [1]).layers) == 2


def test_a_network_of_other_layers_costs_the_chunk_nothing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    failed: list[str] = []
    monkeypatch.setattr(Bundle, "layers", lambda _: LayersCodec(tiny_layer_tables()[:1]))
    chunk = send(chunker(bundle, Layering("always", bundle, failed.append)), bundle, [1])
    assert chunk.layers == ()
    assert failed == ["bad_manifest"]


def test_the_first_face_of_each_track_gets_layers_that_say_what_it_looks_like(bundle: Bundle):
    chunk = send(chunker(bundle, Layering("always", bundle)), bundle, [1, 2, 1])
    codec = bundle.layers()
    read = codec.decode(chunk.payload, 3, chunk.layers)
    assert [latent is None for latent in read] == [False, False, True]
    means = schematic_faces(2)[:, 0].reshape(2, 6, 8, 6, 8).mean(axis=(2, 4)) - 110
    drawn = codec.values(np.stack(read[:2])) / HALF_STEPS
    error = 4 * drawn[:, 1] - means
    assert np.abs(error).max() <= 4.01, "a quarter of a grey level a step"
    assert np.mean(error**2) < 4**2 / 12, "nearer than rounding"


def test_layers_go_with_the_bundle_that_codes(bundle: Bundle):
    device = chunker(bundle, Layering("always", bundle))
    device.add(FrameTime(0, 0.0), faces(bundle, [1]))
    (before,) = device.change(bundle)
    assert bundle.layers().decode(before.payload, 1, before.layers)[0] is not None


@pytest.mark.parametrize("policy", ["never", "on_request"])
def test_nothing_is_loaded_before_layers_are_wanted(bundle: Bundle, policy: str):
    layering = Layering(policy, bundle)
    assert send(chunker(bundle, layering), bundle, [1]).layers == ()
    assert layering._encoder is None
