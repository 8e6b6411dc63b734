"""Pictures to symbols."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_encoder.analysis import Analysis
from edge_encoder.detector import Detector
from edge_encoder.faces import FaceEncoder
from mien.bundle import Bundle
from mien.errors import ManifestError
from mien.manifest import ImageSpec
from tests.support.moving_face import Scene, walk
from tests.support.reseal import reseal


def by_hand(crop: np.ndarray) -> np.ndarray:
    """What the tiny bundle's analysis is, in numpy."""
    means = crop.reshape(3, 16, 3, 16).astype(np.float64).mean(axis=(1, 3)) - 110
    mixing = np.array([1.0, 0.5, -0.5, 0.25]).reshape(4, 1, 1) / 12
    return np.rint(mixing * means).astype(np.int32)


def test_symbols_are_the_rounded_output_of_the_analysis(bundle: Bundle) -> None:
    crops = list(np.random.default_rng(0).integers(0, 256, (5, 1, 48, 48), np.uint8))
    symbols = Analysis(bundle).symbols(crops)
    assert symbols.dtype == np.int32
    np.testing.assert_array_equal(symbols, [by_hand(crop) for crop in crops])


def test_no_face_gives_no_symbols(bundle: Bundle) -> None:
    assert Analysis(bundle).symbols([]).shape == (0, 4, 3, 3)


def test_an_analysis_of_another_shape_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["face"], ["y"], to=TensorProto.FLOAT)
    face = helper.make_tensor_value_info("face", TensorProto.UINT8, ["N", 1, 48, 48])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1, 48, 48])
    graph = helper.make_graph([node], "wrong", [face], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    wrong = reseal(tmp_path / "wrong", bundle, analysis_onnx=model.SerializeToString())
    with pytest.raises(
        ManifestError, match=r"answers \(1, 48, 48\), the manifest says \(4, 3, 3\)"
    ):
        Analysis(wrong)


def test_an_analysis_that_doubts_more_faces_than_there_are_is_refused(
    bundle: Bundle, tmp_path: Path
) -> None:
    model = onnx.load_from_string(bundle.read("analysis.onnx"))
    both = numpy_helper.from_array(np.array([True, False]), "both")
    model.graph.node.append(helper.make_node("Constant", [], ["doubtful"], value=both))
    model.graph.output.append(helper.make_tensor_value_info("doubtful", TensorProto.BOOL, [2]))
    wrong = reseal(tmp_path / "wrong", bundle, analysis_onnx=model.SerializeToString())
    with pytest.raises(ManifestError, match=r"says of \(2,\) faces whether it doubts them"):
        Analysis(wrong)


def test_a_photograph_gives_its_faces_largest_first(detector: Detector, bundle: Bundle) -> None:
    encoder = FaceEncoder(detector, bundle)
    faces = encoder.encode_still(Scene(640, 240).picture(60, 60, (400, 50)))
    assert [face.track_id for face in faces] == [0, 1]
    assert [face.time_ms for face in faces] == [0, 0]
    assert {face.symbols.shape for face in faces} == {(4, 3, 3)}
    # The same drawing twice: the frames of the two agree to a rounding or two.
    assert np.abs(faces[0].symbols - faces[1].symbols).max() <= 1


def test_encoded_faces_survive_the_bundle_s_codec(detector: Detector, bundle: Bundle) -> None:
    encoder = FaceEncoder(detector, bundle)
    faces = [
        face
        for index, picture in enumerate(walk(6))
        for face in encoder.encode(picture, 40 * index)
    ]
    assert [face.time_ms for face in faces] == [0, 40, 80, 120, 160, 200]
    assert bundle.codec().decode(bundle.codec().encode(faces)) == tuple(faces)


def test_a_face_that_walks_keeps_its_symbols(detector: Detector, bundle: Bundle) -> None:
    encoder = FaceEncoder(detector, bundle)
    symbols = [encoder.encode(picture, 0)[0].symbols for picture in walk(12)]
    # Framing follows the face, so what is coded hardly changes while it moves.
    assert np.abs(np.diff(symbols, axis=0)).mean() < 0.2


def test_a_colour_bundle_is_refused_by_name(detector: Detector, bundle: Bundle) -> None:
    image = ImageSpec(3, 48, 48, bundle.manifest.image.landmarks)
    coloured = replace(bundle, manifest=replace(bundle.manifest, image=image))
    with pytest.raises(ManifestError, match="3 channels"):
        FaceEncoder(detector, coloured)


def test_of_a_track_one_face_in_a_period_is_encoded(detector: Detector, bundle: Bundle) -> None:
    encoder = FaceEncoder(detector, bundle)
    encoder.period_ms = 100
    pictures = walk(12)
    times = [
        face.time_ms
        for at, picture in enumerate(pictures)
        for face in encoder.encode(picture, at * 40)
    ]
    assert len(times) >= 4
    assert all(later - earlier >= 100 for earlier, later in pairwise(times))
    assert encoder.in_view == 1
    assert encoder.left_out >= len(times)
