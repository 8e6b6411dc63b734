"""The service that the recognizer is compared with: it has to be right before it is compared."""

from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from benchmarks import jpeg, jpeg_devices
from benchmarks.devices import Pace
from benchmarks.sample import Sample
from benchmarks.services import Served, jpeg_service
from mien.bundle import ALL_FILES, Bundle, load_bundle
from mien.cli.released import chosen_bundle
from mien.probe import load_probe
from mien.v1 import recognition_pb2 as pb

RELEASED = chosen_bundle(None)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(RELEASED, (*ALL_FILES, jpeg.PIXEL_FILE))


@pytest.fixture(scope="module")
def faces(bundle: Bundle) -> Sample:
    return Sample(load_probe(bundle).faces, "drawn for the probe")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with jpeg_service(RELEASED, tmp_path_factory.mktemp("log")) as served:
        yield served


async def test_each_call_gets_what_the_pixel_classifier_says_of_its_own_face(
    service: Served, bundle: Bundle, faces: Sample
) -> None:
    decoded = jpeg.through_jpeg(faces.pixels, 85)
    session = jpeg.open_session(bundle.path(jpeg.PIXEL_FILE))
    expected = np.asarray(session.run(None, {"face": decoded})[0])
    async with grpc.aio.insecure_channel(service.address) as channel:
        calls = [
            unary(pb.EncodedChunk(seq=1, payload=jpeg.encode(face, 85)), timeout=60)
            for unary in [jpeg_devices.unary(channel)]
            for face in faces.pixels
        ]
        answers = [await call for call in calls]  # all are under way at a time
    for answer, row in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer.probabilities, row, atol=1e-5)
        assert answer.expression == bundle.manifest.expressions[int(row.argmax())]


@pytest.mark.parametrize("damage", [b"", b"no picture"])
async def test_what_is_no_face_is_refused_and_costs_the_others_nothing(
    service: Served, faces: Sample, damage: bytes
) -> None:
    whole = jpeg.encode(faces.pixels[0], 85)
    async with grpc.aio.insecure_channel(service.address) as channel:
        recognise = jpeg_devices.unary(channel)
        calls = [
            recognise(pb.EncodedChunk(seq=1, payload=payload), timeout=60)
            for payload in (whole, damage, whole)
        ]
        first, last = await calls[0], await calls[2]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await calls[1]
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert first == last
    assert first.expression


async def test_paced_devices_send_as_many_faces_as_they_were_told_to(
    service: Served, faces: Sample
) -> None:
    files = [jpeg.encode(face, 85) for face in faces.pixels]
    load, took_s = await jpeg_devices.drive(service.address, files, Pace(2, 0.45, 0.1))
    assert load.faces == len(load.latencies_s) == 2 * 5
    assert took_s >= 0.4


def test_the_least_quality_that_is_as_accurate_is_chosen(bundle: Bundle, faces: Sample) -> None:
    session = jpeg.open_session(bundle.path(jpeg.PIXEL_FILE))
    truth = np.asarray(session.run(None, {"face": faces.pixels})[0]).argmax(axis=1)
    labelled = Sample(faces.pixels, faces.source, truth)
    choice = jpeg.chosen_quality(bundle, labelled)
    assert choice.accuracy_of_pixels == 1.0
    wanted = min(choice.accuracy_of_bundle, 1.0)
    for quality in jpeg.QUALITIES:
        again = jpeg.through_jpeg(faces.pixels, quality)
        found = np.asarray(session.run(None, {"face": again})[0]).argmax(axis=1)
        if (found == truth).mean() >= wanted:
            break
    assert (choice.quality, choice.accuracy) == (quality, (found == truth).mean())
    assert jpeg.chosen_quality(bundle, faces).quality == jpeg.DEFAULT_QUALITY
