from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.trainer.datasets import drawn, votes_for, write_fer, write_kaggle, write_official
from trainer.data.errors import DatasetError
from trainer.data.faces import EXPRESSIONS
from trainer.data.ferplus import distributions
from trainer.data.layout import read_held_out, read_split, read_train_and_valid


def test_votes_follow_the_rules_of_ferplus() -> None:
    counts = np.zeros((5, 10), np.int64)
    counts[0, [0, 3]] = 8, 1  # the single vote is an outlier
    counts[1, [1, 8]] = 4, 6  # most say unknown
    counts[2, 9] = 10  # not a face
    counts[3, :8] = 1  # nobody agrees
    counts[4, [4, 6]] = 6, 4
    votes, keep, reasons = distributions(counts)
    assert keep.tolist() == [True, False, False, False, True]
    assert reasons == {"unknown": 1, "not-a-face": 1, "no agreed vote": 1}
    assert votes[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert votes[1, 4] == pytest.approx(0.6)
    assert votes[1, 6] == pytest.approx(0.4)


def test_the_official_layout_gives_pixels_and_majority(tmp_path: Path) -> None:
    faces, votes = drawn(12), votes_for(12, 0)
    write_official(tmp_path / "FER2013Valid", faces, votes)
    read = read_split(tmp_path, "valid")
    assert np.array_equal(read.pixels[:][:, 0], faces)
    assert read.majority.tolist() == votes.argmax(axis=1).tolist()


def test_fer2013s_own_labels_come_with_the_faces_that_have_them(tmp_path: Path) -> None:
    folder = tmp_path / "FER2013Valid"
    write_official(folder, drawn(9), votes_for(9, 0))
    original = read_split(tmp_path, "valid").original
    assert original is not None
    assert original.tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    (folder / "fer2013.csv").write_text("image,emotion\nfer0000002.png,4\n")
    original = read_split(tmp_path, "valid").original
    assert original is not None
    assert original.tolist() == [-1, -1, 4, *[-1] * 6]
    (folder / "fer2013.csv").unlink()
    assert read_split(tmp_path, "valid").original is None


@pytest.mark.parametrize("row", ["fer0000001.png,7", "fer0000001.png,", "fer0000001.png,x", ",3"])
def test_a_label_that_fer2013_has_not_is_refused(tmp_path: Path, row: str) -> None:
    folder = tmp_path / "FER2013Valid"
    write_official(folder, drawn(3), votes_for(3, 0))
    (folder / "fer2013.csv").write_text(f"image,emotion\n{row}\n")
    with pytest.raises(DatasetError, match=r"fer2013.csv.*: expected"):
        read_split(tmp_path, "valid")


def test_one_split_of_the_official_layout_can_be_named_itself(tmp_path: Path) -> None:
    write_official(tmp_path / "kept", drawn(3), votes_for(3, 0))
    faces, split = read_held_out(tmp_path / "kept")
    assert (len(faces), split) == (3, "all")


def test_the_held_out_split_is_test_before_valid_before_train(tmp_path: Path) -> None:
    write_fer(tmp_path, 4, 3)
    assert read_held_out(tmp_path)[1] == "valid"
    write_official(tmp_path / "FER2013Test", drawn(2), votes_for(2, 0))
    assert read_held_out(tmp_path)[1] == "test"


def test_a_row_of_the_wrong_length_is_named(tmp_path: Path) -> None:
    (tmp_path / "label.csv").write_text("a.png,box,1,2\n")
    with pytest.raises(DatasetError, match=r"label.csv line 1: expected 12 columns"):
        read_split(tmp_path, "valid")


def test_kaggles_files_are_read_row_for_row(tmp_path: Path) -> None:
    faces, votes = drawn(8), votes_for(8, 0)
    write_kaggle(tmp_path / "k", faces, votes)
    train = read_split(tmp_path / "k", "train")
    assert np.array_equal(train.pixels[:][:, 0], faces[[0, 1, 4, 5]])
    assert train.majority.tolist() == votes[[0, 1, 4, 5]].argmax(axis=1).tolist()
    assert train.original is not None
    assert train.original.tolist() == [0, 1, 4, 5]
    assert len(read_split(tmp_path / "k", "valid")) == len(read_split(tmp_path / "k", "test")) == 2


def test_kaggles_label_that_is_none_is_named(tmp_path: Path) -> None:
    write_kaggle(tmp_path / "k", drawn(8), votes_for(8, 0))
    table = tmp_path / "k" / "fer2013.csv"
    table.write_text(table.read_text().replace("\n1,", "\n7,"))
    with pytest.raises(DatasetError, match=r"fer2013.csv row 3: expected an emotion of 0 to 6"):
        read_split(tmp_path / "k", "train")


def test_the_first_faces_keep_all_their_labels(tmp_path: Path) -> None:
    write_official(tmp_path / "FER2013Valid", drawn(9), votes_for(9, 0))
    faces = read_split(tmp_path, "valid")
    few = faces.first(4)
    assert len(few.pixels) == len(few.votes) == len(few) == 4
    assert few.original is not None
    assert few.original.tolist() == [0, 1, 2, 3]
    assert len(faces.first(100)) == 9


def test_kaggles_files_of_different_rows_are_refused(tmp_path: Path) -> None:
    write_kaggle(tmp_path / "k", drawn(8), votes_for(8, 0))
    lines = (tmp_path / "k" / "fer2013new.csv").read_text().splitlines()
    del lines[2]
    (tmp_path / "k" / "fer2013new.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(DatasetError, match="not row for row"):
        read_split(tmp_path / "k", "train")


def test_class_folders_accept_other_names_and_count_unknown_labels(tmp_path: Path) -> None:
    for label, count in (("happy", 2), ("anger", 1), ("sleepy", 3)):
        (tmp_path / "test" / label).mkdir(parents=True)
        for index, face in enumerate(drawn(count)):
            Image.fromarray(face).resize((96, 120)).save(tmp_path / "test" / label / f"{index}.jpg")
    faces, split = read_held_out(tmp_path)
    assert split == "test"
    assert [EXPRESSIONS[label] for label in faces.majority] == ["anger", "happiness", "happiness"]
    assert faces.left_out == {"label sleepy": 3}
    assert faces.pixels.shape == (3, 1, 48, 48)


def test_training_faces_that_occur_elsewhere_are_dropped(tmp_path: Path) -> None:
    faces = drawn(6)
    train = np.concatenate([faces[:4], faces[:1], faces[5:]])
    write_official(tmp_path / "FER2013Train", train, votes_for(6, 0))
    write_official(tmp_path / "FER2013Valid", faces[4:], votes_for(2, 1))
    kept, valid = read_train_and_valid(tmp_path)
    assert (len(kept), len(valid)) == (4, 2)
    assert kept.left_out["duplicate"] == 1
    assert kept.left_out["duplicate in another split"] == 1


def test_no_face_of_the_test_split_is_trained_or_chosen_on(tmp_path: Path) -> None:
    faces = drawn(6)
    write_official(tmp_path / "FER2013Train", faces[:4], votes_for(4, 0))
    write_official(tmp_path / "FER2013Valid", faces[3:], votes_for(3, 1))
    write_official(tmp_path / "FER2013Test", faces[[0, 5]], votes_for(2, 2))
    train, valid = read_train_and_valid(tmp_path)
    assert np.array_equal(train.pixels[:][:, 0], faces[1:3])
    assert np.array_equal(valid.pixels[:][:, 0], faces[3:5])


@pytest.mark.parametrize("folder", [".", "train"])
def test_without_a_validation_split_some_of_training_is_held_out(
    tmp_path: Path, folder: str
) -> None:
    (tmp_path / folder / "happy").mkdir(parents=True)
    for index, face in enumerate(drawn(60)):
        Image.fromarray(face).save(tmp_path / folder / "happy" / f"{index}.png")
    train, valid = read_train_and_valid(tmp_path)
    assert len(train) + len(valid) == 60
    assert 1 <= len(valid) <= 20
    again = read_train_and_valid(tmp_path)[1]
    assert np.array_equal(valid.pixels, again.pixels)


def test_an_empty_folder_is_told_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected FER2013Train/label\.csv"):
        read_split(tmp_path, "train")
