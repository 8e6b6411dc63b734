"""Which faces an analysis calls doubtful, and that devices and the trainer look at them alike."""

from pathlib import Path

import numpy as np
import pytest

from edge_encoder.analysis import Analysis
from mien.bundle import Bundle
from mien.holding import quantised
from tests.support.reseal import reseal
from tests.support.tiny_bundle import make_tiny_bundle
from tests.unit.trainer.shared_training import faces
from trainer.runtime import AnalysisNetwork, Network
from trainer.second_look import SHARE, add_doubt, fit_linear, margins

TRAIN, VALID = faces(200, 0), faces(60, 500)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose analysis doubts nobody."""
    return make_tiny_bundle(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def doubting(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same, but that it says whom it doubts."""
    folder = tmp_path_factory.mktemp("doubting")
    for file in ("analysis.onnx", "classifier.onnx"):
        (folder / file).write_bytes(bundle.read(file))
    add_doubt(folder, bundle.tables.gains, TRAIN, VALID)
    model = (folder / "analysis.onnx").read_bytes()
    return reseal(folder / "bundle", bundle, analysis_onnx=model)


def test_the_least_sure_of_the_validation_faces_are_doubtful(
    doubting: Bundle, bundle: Bundle
) -> None:
    y, doubtful = Network(doubting.path("analysis.onnx")).outputs(VALID.pixels)
    np.testing.assert_array_equal(y, Network(bundle.path("analysis.onnx"))(VALID.pixels))
    assert doubtful.mean() == pytest.approx(SHARE, abs=1 / len(VALID))
    middle = len(bundle.tables.gains) // 2
    symbols = quantised(y, bundle.tables.gains[middle])
    levels = np.full(len(symbols), middle, np.int32)
    said = np.sort(Network(bundle.path("classifier.onnx"))(symbols, levels), axis=1)
    sure = said[:, -1] - said[:, -2]
    assert sure[doubtful].mean() < np.quantile(sure, 0.3)


def test_devices_and_the_trainer_look_at_the_same_faces_twice(
    doubting: Bundle, bundle: Bundle
) -> None:
    y, again = Analysis(doubting).latents(list(VALID.pixels))
    assert again == round(SHARE * len(VALID))
    np.testing.assert_allclose(
        y, AnalysisNetwork(doubting.path("analysis.onnx"))(VALID.pixels), atol=1e-4
    )
    once = AnalysisNetwork(bundle.path("analysis.onnx"))(VALID.pixels)
    assert (np.abs(y - once).max(axis=(1, 2, 3)) > 1e-3).sum() == again


def test_an_analysis_that_says_whom_it_doubts_stays_as_it_is(
    doubting: Bundle, tmp_path: Path
) -> None:
    for file in ("analysis.onnx", "classifier.onnx"):
        (tmp_path / file).write_bytes(doubting.path(file).read_bytes())
    add_doubt(tmp_path, doubting.tables.gains, VALID, TRAIN)
    assert (tmp_path / "analysis.onnx").read_bytes() == doubting.path("analysis.onnx").read_bytes()


def test_a_linear_layer_imitates_answers() -> None:
    random = np.random.default_rng(0)
    y = random.normal(size=(500, 2, 3, 1)).astype(np.float32)
    logits = y.reshape(500, 6) @ random.normal(size=(6, 4)) + random.normal(size=4)
    answers = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = margins(y, *fit_linear(y, answers.astype(np.float32)))
    best = np.sort(answers, axis=1)
    np.testing.assert_allclose(found, best[:, -1] - best[:, -2], atol=0.03)
