"""A shadow is compared with what was answered, and delays and answers nothing."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.bundles.shadow import Shadow
from cloud_recognizer.metrics import SHADOW_FULL, Metrics
from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from mien.bitstream import Limits
from mien.bundle import Bundle
from mien.rollout import Rollout, change_rollout
from tests.support.recognizer import Device, eventually, hello, payload, running_recognizer
from tests.support.tiny_bundle import make_tiny_bundle, tiny_symbols

FACES = 40


@pytest.fixture
def real(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path / "bundles" / "real", name="real", created="2026-01-02")


@pytest.fixture
def other(tmp_path: Path) -> Bundle:
    """The same codec, another classifier."""
    folder = tmp_path / "bundles" / "other"
    return make_tiny_bundle(folder, name="other", classifier_seed=9)


def best(bundle: Bundle, payloads: Sequence[bytes], real: Bundle) -> list[str]:
    faces = [face for payload in payloads for face in real.codec().decode(payload)]
    symbols = np.stack([face.symbols for face in faces])
    level = np.array([face.level for face in faces], np.int32)
    model = ExpressionModel(bundle, RuntimeOptions(), Limits())
    return [bundle.manifest.expressions[i] for i in model.classify(symbols, level).argmax(axis=1)]


async def test_both_answer_one_is_returned_and_disagreements_are_counted(
    real: Bundle, other: Bundle
) -> None:
    repository = real.folder.parent
    change_rollout(repository, lambda _: Rollout(real.bundle_id, shadow=other.bundle_id))
    payloads = [payload(real, faces=8, seed=seed) for seed in range(FACES // 8)]
    expected, shadowed = best(real, payloads, real), best(other, payloads, real)
    different = sum(a != b for a, b in zip(expected, shadowed, strict=True))
    assert 0 < different < FACES
    async with running_recognizer(repository) as running:
        device = Device(running.stub)
        await device.open(hello(real))
        for seq, sent in enumerate(payloads, 1):
            await device.send(seq, sent)
        answers = await device.close()
        found = [face.expression for x in answers.results for face in x.recognitions]
        assert found == expected
        assert {x.bundle_id for x in answers.results} == {real.bundle_id}
        await eventually(lambda: running.sample("shadow_faces_total") == FACES)
        assert running.sample("shadow_disagreements_total") == different
        assert running.sample("shadow_disagreement_share") == different / FACES


async def test_a_shadow_of_another_codec_is_never_asked(real: Bundle) -> None:
    repository = real.folder.parent
    foreign = make_tiny_bundle(repository / "foreign", created="2026-01-01", table_width=3.0)
    # As an editor would write it; `mien bundles shadow` refuses.
    change_rollout(repository, lambda _: Rollout(real.bundle_id, shadow=foreign.bundle_id))
    async with running_recognizer(repository) as running:
        device = Device(running.stub)
        await device.open(hello(real))
        await device.send(1, payload(real))
        await device.close()
    # The recognizer has stopped, and with it the shadow's thread.
    assert running.sample("shadow_faces_total") == 0
    assert running.sample("dropped_total", reason=SHADOW_FULL) == 0


async def test_a_shadow_that_hangs_delays_no_answer_and_what_it_misses_is_counted(
    real: Bundle, other: Bundle
) -> None:
    hanging, may_go_on = threading.Event(), threading.Event()

    class Hanging(ExpressionModel):
        def classify(self, symbols: Any, level: Any) -> Any:
            if proven and self.bundle_id == other.bundle_id:
                hanging.set()
                assert may_go_on.wait(30)
            return super().classify(symbols, level)

    proven = False
    repository = real.folder.parent
    change_rollout(repository, lambda _: Rollout(real.bundle_id, shadow=other.bundle_id))
    async with running_recognizer(repository, load=Hanging) as running:
        proven = True
        device = Device(running.stub)
        await device.open(hello(real))
        for seq in range(1, 31):  # one at a time, so each is a batch and a piece of its own
            await device.send(seq, payload(real, faces=2))
            await device.acknowledged(seq)
        assert hanging.is_set()
        assert running.sample("shadow_faces_total") == 0
        assert running.sample("dropped_total", reason=SHADOW_FULL) == 2 * (30 - 1 - 16)
        may_go_on.set()
        await eventually(lambda: running.sample("shadow_faces_total") == 2 * 17)
        await device.close()


async def test_a_shadow_that_fails_is_counted_and_goes_on(real: Bundle, other: Bundle) -> None:
    class Failing(ExpressionModel):
        failures = 1

        def classify(self, symbols: Any, level: Any) -> Any:
            if self.failures:
                self.failures -= 1
                raise RuntimeError("no memory")
            return super().classify(symbols, level)

    metrics = Metrics()
    catalogue = Catalogue(Limits(), metrics)
    model = ExpressionModel(real, RuntimeOptions(), Limits())
    catalogue.add(model, 0.0)
    catalogue.add(Failing(other, RuntimeOptions(), Limits()), 0.0)
    catalogue.follow(Rollout(real.bundle_id, shadow=other.bundle_id))
    shadow = Shadow(catalogue, metrics)
    async with shadow.running():
        for _ in range(2):
            shadow.offer(model, tiny_symbols(3), np.zeros(3, np.int32), ["neutral"] * 3)
        sample = metrics.registry.get_sample_value
        await eventually(lambda: sample("mien_cloud_shadow_faces_total") == 3)
        assert sample("mien_cloud_shadow_failures_total") == 1
