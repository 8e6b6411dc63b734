"""AffectNet and RAF-DB, in generated copies of their layouts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.trainer.datasets import (
    drawn,
    in_colour,
    write_affectnet_set,
    write_affectnet_table,
    write_rafdb,
)
from trainer.data.errors import DatasetError, NoSplitError
from trainer.data.faces import EXPRESSIONS, FaceSet
from trainer.data.images import FaceFormat
from trainer.data.layout import read_held_out, read_split, read_train_and_valid

AFFECTNET = ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"]
RAFDB = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]
COLOUR_100 = FaceFormat(100, 3)


def names(faces: FaceSet) -> list[str]:
    return [EXPRESSIONS[label] for label in faces.majority]


def test_affectnets_labels_are_in_its_own_order_and_the_rest_is_counted(tmp_path: Path) -> None:
    write_affectnet_set(tmp_path / "train_set", drawn(12), [*range(11), 9])
    write_affectnet_set(tmp_path / "val_set", drawn(2, 20), [7, 0])
    train = read_split(tmp_path, "train")
    # Sorted by name, 10.jpg comes after 1.jpg: it is the one that says "no face".
    assert names(train) == AFFECTNET
    assert train.left_out == {"none": 1, "uncertain": 2, "no face": 1}
    assert np.array_equal(np.unique(train.votes), [0, 1])
    faces, split = read_held_out(tmp_path, COLOUR_100)
    assert (names(faces), split) == (["contempt", "neutral"], "valid")
    assert faces.pixels.shape == (2, 3, 100, 100)


def test_one_split_of_affectnet_can_be_named_itself(tmp_path: Path) -> None:
    write_affectnet_set(tmp_path / "val_set", drawn(2), [1, 2])
    faces, split = read_held_out(tmp_path / "val_set")
    assert (names(faces), split) == (["happiness", "sadness"], "all")


def test_a_label_may_be_an_integer_in_its_array(tmp_path: Path) -> None:
    write_affectnet_set(tmp_path / "val_set", drawn(2), [1, 2])
    np.save(tmp_path / "val_set" / "annotations" / "1_exp.npy", np.int64(6))
    assert names(read_split(tmp_path, "valid")) == ["happiness", "anger"]


def test_a_picture_without_a_label_is_named(tmp_path: Path) -> None:
    write_affectnet_set(tmp_path / "val_set", drawn(2), [1, 2])
    (tmp_path / "val_set" / "annotations" / "1_exp.npy").unlink()
    with pytest.raises(DatasetError, match=r"1_exp\.npy is missing: its picture has no label"):
        read_split(tmp_path, "valid")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array("11"), "expected an expression, 0 to 10; got '11'"),
        (np.array("-1"), "got '-1'"),
        (np.array([1, 2]), "does not hold one label"),
        (b"", "does not hold one label"),
        (b"\x93NUMPY", "does not hold one label"),
    ],
)
def test_a_label_that_is_none_is_named(
    tmp_path: Path, content: NDArray[Any] | bytes, message: str
) -> None:
    write_affectnet_set(tmp_path / "val_set", drawn(1), [1])
    annotation = tmp_path / "val_set" / "annotations" / "0_exp.npy"
    if isinstance(content, bytes):
        annotation.write_bytes(content)
    else:
        np.save(annotation, content)
    with pytest.raises(DatasetError, match=message) as raised:
        read_split(tmp_path, "valid")
    assert "0_exp.npy" in str(raised.value)


def test_a_label_that_would_run_code_is_refused(tmp_path: Path) -> None:
    write_affectnet_set(tmp_path / "val_set", drawn(1), [1])
    np.save(tmp_path / "val_set" / "annotations" / "0_exp.npy", np.array({}), allow_pickle=True)
    with pytest.raises(DatasetError, match=r"0_exp\.npy does not hold one label"):
        read_split(tmp_path, "valid")


def test_affectnets_tables_cut_faces_out_by_their_boxes(tmp_path: Path) -> None:
    faces = drawn(11)
    write_affectnet_table(tmp_path, "training.csv", faces, list(range(11)), header=True)
    write_affectnet_table(tmp_path, "validation.csv", drawn(2, 30), [3, 10], header=False)
    train = read_split(tmp_path, "train", FaceFormat(48, 3))
    assert names(train) == AFFECTNET
    wanted = np.stack([np.asarray(in_colour(face)).transpose(2, 0, 1) for face in faces[:8]])
    assert np.array_equal(train.pixels[:], wanted)
    assert train.left_out == {"none": 1, "uncertain": 1, "no face": 1}
    valid, split = read_held_out(tmp_path)
    assert (names(valid), split) == (["surprise"], "valid")


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_two_faces_of_one_picture_are_no_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr("trainer.data.faces.IN_MEMORY_BYTES", limit)
    write_affectnet_table(tmp_path, "training.csv", drawn(1), [1], header=True)
    table = tmp_path / "Manually_Annotated_file_lists" / "training.csv"
    row = table.read_text().splitlines()[1]
    other = row.replace("51,48,48,48", "0,0,48,48").replace(",1,-0.2", ",2,-0.2")
    table.write_text(table.read_text() + other + "\n" + row + "\n")
    assert names(read_split(tmp_path, "train")) == ["happiness", "sadness", "happiness"]
    write_affectnet_table(tmp_path, "validation.csv", drawn(1, 5), [1], header=False)
    train, _ = read_train_and_valid(tmp_path)
    assert train.left_out == {"duplicate": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0/a.png,1,2,3", "training.csv line 2: expected 9 columns"),
        ("0/a.png,x,0,48,48,,1,0,0", "line 2: the face's box is not of numbers"),
        ("0/a.png,0,0,48,48,,happy,0,0", "line 2: expected an expression, 0 to 10; got 'happy'"),
        ("0/a.png,0,0,48,48,,1,0,0", r"a\.png is missing"),
    ],
)
def test_a_row_of_affectnets_table_that_is_wrong_is_named(
    tmp_path: Path, row: str, message: str
) -> None:
    write_affectnet_table(tmp_path, "training.csv", drawn(1)[:0], [], header=True)
    (tmp_path / "Manually_Annotated_Images").mkdir()
    table = tmp_path / "Manually_Annotated_file_lists" / "training.csv"
    table.write_text(table.read_text() + row + "\n")
    with pytest.raises(DatasetError, match=message):
        read_split(tmp_path, "train")


def test_a_labelled_face_without_a_box_is_left_out(tmp_path: Path) -> None:
    write_affectnet_table(tmp_path, "training.csv", drawn(2), [1, 2], header=True)
    table = tmp_path / "Manually_Annotated_file_lists" / "training.csv"
    table.write_text(table.read_text().replace("51,48,48,48", "-1,-1,-1,-1", 1))
    faces = read_split(tmp_path, "train")
    assert (names(faces), faces.left_out) == (["sadness"], {"no box": 1})


@pytest.mark.parametrize("parent", [".", "basic"])
def test_rafdbs_labels_are_in_its_own_order(tmp_path: Path, parent: str) -> None:
    train = [f"train_{number:05d}" for number in range(1, 8)]
    pictures = drawn(9, side=100)
    write_rafdb(
        tmp_path / parent, pictures, [*train, "test_0001", "test_0002"], [*range(1, 8), 4, 7]
    )
    assert names(read_split(tmp_path, "train")) == RAFDB
    faces, split = read_held_out(tmp_path, COLOUR_100)
    assert (names(faces), split) == (["happiness", "neutral"], "test")
    difference = faces.pixels[:][:, 0].astype(int) - pictures[7:].astype(int)
    assert np.abs(difference).mean() < 8


def test_rafdb_has_no_validation_split_so_some_of_training_is_held_out(tmp_path: Path) -> None:
    train = [f"train_{number:05d}" for number in range(60)]
    write_rafdb(tmp_path, drawn(62), [*train, "test_0001", "test_0002"], [1] * 62)
    with pytest.raises(NoSplitError, match="names no picture of a valid split"):
        read_split(tmp_path, "valid")
    kept, valid = read_train_and_valid(tmp_path)
    assert len(kept) + len(valid) == 60
    assert 1 <= len(valid) <= 20


@pytest.mark.parametrize("line", ["train_00002.jpg", "train_00002.jpg 0", "train_00002.jpg 8", "x"])
def test_a_line_of_rafdbs_labels_that_is_wrong_is_named(tmp_path: Path, line: str) -> None:
    write_rafdb(tmp_path, drawn(1), ["train_00001"], [1])
    labels = tmp_path / "EmoLabel" / "list_patition_label.txt"
    labels.write_text(labels.read_text() + line + "\n")
    with pytest.raises(DatasetError, match=r"label\.txt line 2: expected `train_00001\.jpg 5`"):
        read_split(tmp_path, "train")


def test_a_picture_that_rafdb_names_and_lacks_is_named(tmp_path: Path) -> None:
    write_rafdb(tmp_path, drawn(2), ["train_00001", "train_00002"], [1, 2])
    (tmp_path / "Image" / "aligned" / "train_00002_aligned.jpg").unlink()
    with pytest.raises(DatasetError, match=r"train_00002_aligned\.jpg is missing"):
        read_split(tmp_path, "train")
