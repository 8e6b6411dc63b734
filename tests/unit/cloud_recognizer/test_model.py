"""Where a bundle's networks run."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import onnxruntime as ort
import pytest

from cloud_recognizer import model
from cloud_recognizer.model import CPU, CUDA, ExpressionModel, Network, RuntimeOptions
from mien.bitstream import Limits
from mien.bundle import LAYER_FILES, Bundle
from mien.layers import LayersCodec


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An ONNX Runtime that says that it was built for CUDA, and finds half of what it wants."""
    happened: list[str] = []

    def preload() -> None:
        happened.append("CUDA")
        print("Failed to load libcudnn.so.9")  # as it does

    monkeypatch.setattr(ort, "preload_dlls", preload)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    model._load_cuda.cache_clear()
    yield happened
    model._load_cuda.cache_clear()


@pytest.mark.filterwarnings("ignore:Specified provider")  # this ONNX Runtime is not for CUDA
def test_cudas_wheels_are_loaded_once_and_what_is_missing_is_logged(
    bundle: Bundle,
    loads: list[str],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.WARNING):
        for name in ("classifier.onnx", "synthesis.onnx"):
            assert Network(bundle, name, RuntimeOptions("auto")).provider == CPU
    assert loads == ["CUDA"]
    assert [record.getMessage() for record in caplog.records] == [
        "CUDA: Failed to load libcudnn.so.9"
    ]
    assert capsys.readouterr().out == ""  # stdout is for events


def test_layers_are_read_before_anybody_waits_for_them(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading is compiled when it is first done, which takes seconds that no stream should feel."""
    read: list[int] = []
    decode = LayersCodec.decode

    def noted(codec: LayersCodec, payload: bytes, faces: int, layers: Sequence[bytes]) -> Any:
        read.append(len(layers))
        return decode(codec, payload, faces, layers)

    monkeypatch.setattr(LayersCodec, "decode", noted)
    options = RuntimeOptions("cpu", reconstruction=True)
    ExpressionModel(bundle, options, Limits()).prove()
    assert read == [len(LAYER_FILES)]


def test_nothing_of_cuda_is_loaded_for_the_processor(bundle: Bundle, loads: list[str]) -> None:
    assert Network(bundle, "classifier.onnx", RuntimeOptions("cpu")).provider == CPU
    assert loads == []
