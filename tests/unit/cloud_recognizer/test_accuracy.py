"""Accuracy without labels and with some, on a real recognizer and its /metrics."""

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from cloud_recognizer.accuracy.estimate import Accuracy
from cloud_recognizer.accuracy.sliding_window import stability_index
from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.hub.contract import watched
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from mien.bitstream import Box, Limits
from mien.bundle import Bundle
from mien.calibration import Calibration, confidence, confidence_bin
from mien.messages.labels import FaceLabel, LabelResult, LabelStatus
from mien.messages.results import ChunkResult, ItemError, ItemStatus, Recognition
from mien.v1 import recognition_pb2 as pb
from tests.support.hubs import origin
from tests.support.metrics_page import metrics_page
from tests.support.nats_server import nats_server
from tests.support.recognizer import (
    RPC_TIMEOUT_S,
    Device,
    Running,
    eventually,
    hello,
    payload,
    running_recognizer,
)
from tests.support.tiny_bundle import make_tiny_bundle

TEMPERATURE = 2.0
EXPRESSIONS = (10, 20, 30, 0, 0, 20, 10, 10)
CONFIDENCES = (0, 10, 20, 30, 20, 10, 5, 5, 0, 0)
GROUPS = {"lobby-*": "lobby"}


@pytest.fixture
def calibrated(tmp_path: Path) -> Bundle:
    said = Calibration(TEMPERATURE, EXPRESSIONS, CONFIDENCES)
    return make_tiny_bundle(tmp_path / "bundles" / "tiny", calibration=said)


async def recognised(running: Running, bundle: Bundle, device_id: str) -> ChunkResult:
    """One chunk of eight faces, and what was said of it."""
    device = Device(running.stub)
    await device.open(hello(bundle, device_id))
    await device.send(1, payload(bundle, faces=8))
    (result,) = (await device.close()).results
    return result


async def report(running: Running, *labels: FaceLabel) -> list[LabelResult]:
    request = pb.ReportLabelsRequest(labels=[label.to_proto() for label in labels])
    response = await running.stub.ReportLabels(request, timeout=RPC_TIMEOUT_S)
    return [LabelResult.from_proto(result) for result in response.results]


def confidences(result: ChunkResult, temperature: float) -> list[float]:
    return [confidence(face.probabilities, temperature) for face in result.recognitions]


async def test_the_page_has_the_estimate_and_the_drift_by_bundle_and_group(
    calibrated: Bundle,
) -> None:
    settings = {"device_groups": GROUPS, "drift_min_faces": 8, "metrics_port": 0}
    async with running_recognizer(calibrated.folder.parent, **settings) as running:
        result = await recognised(running, calibrated, "lobby-7")
        await recognised(running, calibrated, "secret-door")
        page = metrics_page(running.serving.metrics_port or 0)
    of = f'bundle_id="{calibrated.bundle_id}",group="lobby"'
    other = of.replace("lobby", "other")
    calibrated_ones = confidences(result, TEMPERATURE)
    assert calibrated_ones != pytest.approx(confidences(result, 1))
    estimate = sum(calibrated_ones) / 8
    assert page[f"mien_cloud_accuracy_window_faces{{{of}}}"] == 8
    assert page[f"mien_cloud_accuracy_estimate{{{of}}}"] == pytest.approx(estimate, rel=1e-6)
    assert page[f"mien_cloud_accuracy_window_faces{{{other}}}"] == 8
    names = calibrated.manifest.expressions
    said = [names.index(face.expression) for face in result.recognitions]
    for word, reference, current in (
        ("expression", EXPRESSIONS, np.bincount(said, minlength=8)),
        (
            "confidence",
            CONFIDENCES,
            np.bincount([*map(confidence_bin, calibrated_ones)], minlength=10),
        ),
    ):
        found = page[f'mien_cloud_drift_psi{{{of},of="{word}",reference="bundle"}}']
        assert found == pytest.approx(stability_index(reference, current.tolist()), rel=1e-9)
        assert found > 0
    assert not [name for name in page if "secret" in name or "lobby-7" in name]


async def test_the_temperature_changes_no_answer(calibrated: Bundle, tmp_path: Path) -> None:
    plain = make_tiny_bundle(tmp_path / "plain" / "tiny")
    async with running_recognizer(calibrated.folder.parent) as running:
        first = await recognised(running, calibrated, "door")
    async with running_recognizer(plain.folder.parent) as running:
        second = await recognised(running, plain, "door")
        estimate = running.sample("accuracy_estimate", bundle_id=plain.bundle_id, group="other")
    assert first.recognitions == second.recognitions
    # A bundle without a calibration is taken at its word.
    assert estimate == pytest.approx(np.mean([face.probability for face in second.recognitions]))


async def test_too_few_faces_have_an_estimate_and_no_drift(calibrated: Bundle) -> None:
    async with running_recognizer(calibrated.folder.parent, drift_min_faces=9) as running:
        await recognised(running, calibrated, "door")
        names = {
            sample.name
            for family in running.metrics.registry.collect()
            for sample in family.samples
        }
    assert "mien_cloud_accuracy_estimate" in names
    assert "mien_cloud_drift_psi" not in names
    assert "mien_cloud_accuracy_measured" not in names


async def test_faces_of_calls_are_a_group_of_their_own(calibrated: Bundle) -> None:
    async with running_recognizer(calibrated.folder.parent) as running:
        request = pb.RecognizeRequest(payloads=[payload(calibrated, faces=3), b"damaged"])
        await running.stub.Recognize(request, timeout=RPC_TIMEOUT_S)
        of = {"bundle_id": calibrated.bundle_id, "group": "calls"}
        assert running.sample("accuracy_window_faces", **of) == 3


async def test_a_bundle_that_is_gone_has_no_series(repository: Path, first: Bundle) -> None:
    second = make_tiny_bundle(repository / "second", created="2026-01-02")
    async with running_recognizer(repository, bundles_poll_s=0.02) as running:
        await recognised(running, first, "door")
        of = {"bundle_id": first.bundle_id, "group": "other"}
        assert running.sample("accuracy_window_faces", **of) == 8
        first.folder.rename(repository.parent / "away")
        value = running.metrics.registry.get_sample_value
        await eventually(lambda: value("mien_cloud_accuracy_window_faces", of) is None)
        assert running.serving.bundle_id == second.bundle_id


async def test_labels_are_compared_once_and_counted(calibrated: Bundle) -> None:
    settings = {"device_groups": GROUPS, "label_window_s": 60.0, "metrics_port": 0}
    async with running_recognizer(calibrated.folder.parent, **settings) as running:
        result = await recognised(running, calibrated, "lobby-7")
        said = [face.expression for face in result.recognitions]
        other = next(name for name in calibrated.manifest.expressions if name != said[1])
        labels = [
            FaceLabel("lobby-7", 1, 1, 0, said[0]),
            FaceLabel("lobby-7", 1, 1, 1, other),
            FaceLabel("lobby-7", 1, 1, 2, said[2]),
            FaceLabel("lobby-7", 1, 1, 0, said[0]),  # has its label
            FaceLabel("lobby-7", 1, 1, 3, "boredom"),
            FaceLabel("lobby-7", 1, 1, 8, said[0]),  # the chunk has eight faces
            FaceLabel("lobby-7", 1, 2, 0, said[0]),
            FaceLabel("lobby-7", 2, 1, 0, said[0]),
            FaceLabel("lobby-8", 1, 1, 0, said[0]),
        ]
        results = await report(running, *labels)
        # What was no expression has used up no answer.
        again = await report(running, FaceLabel("lobby-7", 1, 1, 3, said[3]))
        page = metrics_page(running.serving.metrics_port or 0)
    agreed, disagreed, unknown = LabelStatus
    assert [result.status for result in results] == [agreed, disagreed, agreed, *[unknown] * 6]
    codes = [result.error.code for result in results if isinstance(result.error, ItemError)]
    assert codes == ["unknown_face", "unknown_expression", *["unknown_face"] * 4]
    assert [result.status for result in again] == [agreed]
    of = f'{{bundle_id="{calibrated.bundle_id}",group="lobby"}}'
    assert page[f"mien_cloud_labelled_faces_total{of}"] == 4
    assert page[f"mien_cloud_labelled_agreed_total{of}"] == 3
    assert page[f"mien_cloud_accuracy_labelled_faces{of}"] == 4
    assert page[f"mien_cloud_accuracy_measured{of}"] == 0.75
    expected = sum(confidences(result, TEMPERATURE)[:4]) / 4
    assert page[f"mien_cloud_accuracy_labelled_estimate{of}"] == pytest.approx(expected, rel=1e-6)
    counts = [page[f'mien_cloud_labels_total{{outcome="{x.name.lower()}"}}'] for x in LabelStatus]
    assert counts == [3, 1, 6]
    assert not [name for name in page if "lobby-" in name]


async def test_a_label_that_comes_late_finds_no_answer(calibrated: Bundle) -> None:
    async with running_recognizer(calibrated.folder.parent, label_window_s=0.001) as running:
        result = await recognised(running, calibrated, "door")
        said = result.recognitions[0].expression
        await asyncio.sleep(0.002)
        (late,) = await report(running, FaceLabel("door", 1, 1, 0, said))
    assert late.status is LabelStatus.UNKNOWN
    assert late.error is not None
    assert late.error.code == "unknown_face"


async def test_a_face_can_be_labelled_at_any_recognizer_and_is_counted_there(
    calibrated: Bundle, tmp_path: Path
) -> None:
    with nats_server(tmp_path) as nats:
        settings = {"nats": nats.address, "label_window_s": 60.0}
        async with (
            running_recognizer(calibrated.folder.parent, **settings) as answering,
            running_recognizer(calibrated.folder.parent, **settings) as other,
        ):
            watch = other.stub.WatchRecognitions(pb.WatchRecognitionsRequest())
            await watch.initial_metadata()
            result = await recognised(answering, calibrated, "door")
            assert isinstance(await watch.read(), pb.WatchRecognitionsResponse)
            watch.cancel()
            label = FaceLabel("door", 1, 1, 0, result.recognitions[0].expression)
            statuses = [(await report(other, label))[0].status for _ in range(2)]
            assert statuses == [LabelStatus.AGREED, LabelStatus.UNKNOWN]
            of = {"bundle_id": calibrated.bundle_id, "group": "other"}
            assert other.sample("labelled_faces_total", **of) == 1
            assert other.sample("accuracy_measured", **of) == 1
            # What it did not answer itself is no part of its estimate.
            assert other.sample("accuracy_window_faces", **of) == 0
            assert answering.sample("accuracy_window_faces", **of) == 8
            assert answering.sample("labelled_faces_total", **of) == 0


def test_a_published_chunk_that_is_no_answer_of_the_bundle_is_not_remembered(
    calibrated: Bundle, catalogue: Catalogue
) -> None:
    accuracy = Accuracy(CloudConfig(calibrated.folder, label_window_s=60), catalogue, Metrics())
    source = replace(origin(), bundle_id=calibrated.bundle_id)
    good = answered(calibrated, 1, 0, 1)
    for row in ((), (1.0,), (-1.0,) * 8, (float("nan"),) * 8, (2.0,) * 8):
        bad = replace(good.recognitions[1], probabilities=row)
        faces = (good.recognitions[0], bad)
        accuracy.remember(watched(source, replace(good, recognitions=faces)), 0.0)
    accuracy.remember(watched(origin(), good), 0.0)  # of a bundle that is not here
    assert accuracy._recent is not None
    assert accuracy._recent.faces == 0
    accuracy.remember(watched(source, good), 0.0)
    assert accuracy._recent.faces == 2
    (result,) = accuracy.report([FaceLabel("door", 4, 1, 1, good.recognitions[1].expression)])
    assert result.status is LabelStatus.AGREED


def test_a_chunk_is_remembered_for_as_long_as_others_of_its_age(
    calibrated: Bundle, catalogue: Catalogue
) -> None:
    accuracy = Accuracy(CloudConfig(calibrated.folder, label_window_s=60), catalogue, Metrics())
    source = replace(origin(), bundle_id=calibrated.bundle_id)
    for seq, age_s in ((1, 61.0), (2, 30.0)):
        accuracy.remember(watched(source, answered(calibrated, seq, 0)), age_s)
    name = calibrated.manifest.expressions[0]
    labels = [FaceLabel("door", 4, seq, 0, name) for seq in (1, 2)]
    statuses = [result.status for result in accuracy.report(labels)]
    assert statuses == [LabelStatus.UNKNOWN, LabelStatus.AGREED]


async def test_labels_are_refused_unless_the_operator_asks_for_them(calibrated: Bundle) -> None:
    async with running_recognizer(calibrated.folder.parent) as running:
        for labels in ((), (FaceLabel("door", 1, 1, 0, "fear"),)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await report(running, *labels)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "label_window_s" in (caught.value.details() or "")
        assert running.sample("rpc_errors_total", code="labels_disabled") == 2


async def test_a_call_of_too_many_or_malformed_labels_is_refused_whole(calibrated: Bundle) -> None:
    async with running_recognizer(calibrated.folder.parent, label_window_s=60.0) as running:
        result = await recognised(running, calibrated, "door")
        good = FaceLabel("door", 1, 1, 0, result.recognitions[0].expression)
        for labels in ([good] * 257, [good, FaceLabel("no/door", 1, 1, 0, "fear")]):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await report(running, *labels)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        (counted,) = await report(running, good)
    assert counted.status is LabelStatus.AGREED


class Clock:
    """Seconds that pass when a test says so."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def catalogue(calibrated: Bundle) -> Catalogue:
    catalogue = Catalogue(Limits(), Metrics())
    catalogue.add(ExpressionModel(calibrated, RuntimeOptions(), Limits()), 0.0)
    return catalogue


def answered(bundle: Bundle, seq: int, *expressions: int) -> ChunkResult:
    """A result with a face for each, of probability 0.9 and 0.1 for the next expression."""
    names = bundle.manifest.expressions
    faces = []
    for index, best in enumerate(expressions):
        row = [0.0] * len(names)
        row[best], row[(best + 1) % len(names)] = 0.9, 0.1
        box = Box(0, 0, 1, 1)
        faces.append(Recognition(index, 0, 1, box, names[best], 0.9, tuple(row)))
    return ChunkResult(seq, ItemStatus.RESULT, bundle.bundle_id, tuple(faces))


def test_the_estimate_and_the_drift_of_faces_counted_by_hand(
    calibrated: Bundle, catalogue: Catalogue
) -> None:
    config = CloudConfig(calibrated.folder, drift_min_faces=4)
    accuracy = Accuracy(config, catalogue, Metrics(), Clock())
    accuracy.observe(hello(calibrated), answered(calibrated, 1, 0, 0, 1, 2))
    (row,) = accuracy.figures()
    # At temperature 2 odds of 9 to 1 are 3 to 1.
    assert row.window.estimate == pytest.approx(0.75)
    # Four faces in eight bins, (n + ½) / 8; a hundred in the manifest, (n + ½) / 104.
    now = [2.5, 1.5, 1.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    before = [10.5, 20.5, 30.5, 0.5, 0.5, 20.5, 10.5, 10.5]
    by_hand = sum(
        (n / 8 - b / 104) * np.log((n / 8) / (b / 104)) for n, b in zip(now, before, strict=True)
    )
    assert by_hand == pytest.approx(0.774271, abs=1e-6)
    assert row.window.expression_drift == pytest.approx(by_hand)


def test_ten_thousand_devices_are_as_many_series_as_there_are_groups(
    calibrated: Bundle, catalogue: Catalogue
) -> None:
    metrics = Metrics()
    config = CloudConfig(calibrated.folder, device_groups=GROUPS, label_window_s=1, label_faces=64)
    accuracy = Accuracy(config, catalogue, metrics, Clock())
    for number in range(5000):
        for device_id in (f"lobby-{number}", f"hostile-{number}"):
            result = answered(calibrated, 1, 0)
            accuracy.observe(hello(calibrated, device_id), result)
            source = replace(origin(device_id), bundle_id=calibrated.bundle_id)
            accuracy.remember(watched(source, result), 0.0)
    assert [(row.group, row.window.faces) for row in accuracy.figures()] == [
        ("lobby", 5000),
        ("other", 5000),
    ]
    assert accuracy._recent is not None
    assert accuracy._recent.faces == 64
    sample = metrics.registry.get_sample_value
    assert sample("mien_cloud_dropped_total", {"reason": "answers_full"}) == 10_000 - 64


async def test_answers_are_forgotten_though_nothing_more_comes(
    calibrated: Bundle, catalogue: Catalogue
) -> None:
    accuracy = Accuracy(CloudConfig(calibrated.folder, label_window_s=0.1), catalogue, Metrics())
    result = answered(calibrated, 1, *[0] * 8)
    accuracy.observe(hello(calibrated), result)
    accuracy.remember(watched(replace(origin(), bundle_id=calibrated.bundle_id), result), 0.0)
    recent = accuracy._recent
    assert recent is not None
    assert recent.faces == 8
    async with accuracy.running():
        await eventually(lambda: recent.faces == 0)
    assert [row.window.faces for row in accuracy.figures()] == [8]  # counted all the same
