"""Faces of other sizes and in colour, in memory and in their files."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.trainer.datasets import (
    drawn,
    in_colour,
    votes_for,
    write_affectnet_set,
    write_fer,
    write_kaggle,
)
from trainer.data.errors import DatasetError
from trainer.data.faces import FaceSet
from trainer.data.images import Box, FaceFormat, fitted, read_picture
from trainer.data.layout import read_held_out, read_split, read_train_and_valid
from trainer.data.pictures import Picture, PictureFiles

COLOUR_64 = FaceFormat(64, 3)


@pytest.fixture
def files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dataset is too large for memory."""
    monkeypatch.setattr("trainer.data.faces.IN_MEMORY_BYTES", 0)


def test_channels_are_one_or_three() -> None:
    with pytest.raises(ValueError, match="channels: expected 1"):
        FaceFormat(48, 2)
    with pytest.raises(ValueError, match="at least 8"):
        FaceFormat(0, 1)


def test_colour_comes_as_red_green_and_blue(tmp_path: Path) -> None:
    face = drawn(1)[0]
    in_colour(face).save(tmp_path / "face.png")
    pixels = read_picture(tmp_path / "face.png", FaceFormat(48, 3))
    assert pixels.shape == (3, 48, 48)
    assert np.array_equal(pixels[0], face)
    assert np.array_equal(pixels[2], (face * 0.6).astype(np.uint8))


def test_a_grey_picture_in_colour_has_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(drawn(1)[0]).save(tmp_path / "face.png")
    pixels = read_picture(tmp_path / "face.png", COLOUR_64)
    assert np.array_equal(pixels[0], pixels[1])
    assert np.array_equal(pixels[0], pixels[2])


@pytest.mark.parametrize(
    ("box", "square"),
    [
        (None, (slice(0, 20), slice(10, 30))),
        (Box(5, 2, 8, 8), (slice(2, 10), slice(5, 13))),
        (Box(5, 2, 4, 8), (slice(2, 10), slice(3, 11))),
        (Box(-9, -9, 10, 10), (slice(0, 10), slice(0, 10))),
        (Box(35, 15, 10, 10), (slice(10, 20), slice(30, 40))),
        (Box(0, 0, 90, 90), (slice(0, 20), slice(20, 40))),
    ],
)
def test_a_face_is_the_square_about_its_box_inside_the_picture(
    box: Box | None, square: tuple[slice, slice]
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 40), dtype=np.uint8)
    wanted = picture[square]
    got = fitted(Image.fromarray(picture), FaceFormat(len(wanted), 1), box)
    assert np.array_equal(got[0], wanted)


@pytest.mark.parametrize("layout", ["ferplus", "kaggle"])
def test_every_layout_is_read_in_the_format_asked_for(tmp_path: Path, layout: str) -> None:
    if layout == "ferplus":
        write_fer(tmp_path / "data", 6, 3)
    else:
        write_kaggle(tmp_path / "data", drawn(12), votes_for(12, 0))
    for faces in read_train_and_valid(tmp_path / "data", COLOUR_64):
        assert faces.pixels.shape == (len(faces), 3, 64, 64)
        assert faces.pixels.dtype == np.uint8
        # Enlarged or not, it is the same drawing: its mean barely moves.
    grey = read_split(tmp_path / "data", "train").pixels
    colour = read_split(tmp_path / "data", "train", COLOUR_64).pixels
    assert np.allclose(grey[:].mean(axis=(1, 2, 3)), colour[:].mean(axis=(1, 2, 3)), atol=2)


def test_files_are_indexed_as_the_array_that_they_hold(tmp_path: Path) -> None:
    pictures = []
    for index, face in enumerate(drawn(7)):
        Image.fromarray(face).save(tmp_path / f"{index}.png")
        pictures.append(Picture(tmp_path / f"{index}.png"))
    files, array = PictureFiles(pictures, FaceFormat()), drawn(7)[:, None]
    assert (files.shape, files.ndim, files.dtype) == (array.shape, array.ndim, array.dtype)
    assert (len(files), files.nbytes) == (7, array.nbytes)
    order = np.array([5, 0, 5, 3])
    mask = np.array([True, False, True, False, False, False, True])
    for chosen in (order, mask, slice(2, 6), slice(None), slice(None, None, -2), [1, 4], -1, 3):
        assert np.array_equal(files[chosen], array[chosen]), chosen
    assert np.array_equal(files.subset(mask)[:], array[mask])
    assert np.array_equal(np.asarray(files), array)
    for wrong in (7, np.array([2, 9])):
        with pytest.raises(IndexError):
            files[wrong]


def test_what_waits_for_the_threads_is_no_limit_to_what_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.data.pictures.QUEUED_PICTURES", 2)
    for index, face in enumerate(drawn(5)):
        Image.fromarray(face).save(tmp_path / f"{index}.png")
    files = PictureFiles([Picture(tmp_path / f"{i}.png") for i in range(5)], FaceFormat())
    assert np.array_equal(files[:], drawn(5)[:, None])
    assert len(set(files.digests())) == 5


@pytest.mark.usefixtures("files_only")
def test_a_dataset_too_large_for_memory_stays_in_its_files(tmp_path: Path) -> None:
    faces = drawn(9)
    labels = [0, 1, 2, 3, 4, 5]
    # The last of training is the first again, and its fifth is in the validation split.
    write_affectnet_set(tmp_path / "train_set", faces[[0, 1, 2, 3, 4, 0]], labels)
    write_affectnet_set(tmp_path / "val_set", faces[4:7], [0, 1, 2])
    train, valid = read_train_and_valid(tmp_path, COLOUR_64)
    assert isinstance(train.pixels, PictureFiles)
    assert isinstance(valid.pixels, PictureFiles)
    assert (len(train), len(valid)) == (4, 3)
    assert train.left_out == {"duplicate": 1, "duplicate in another split": 1}
    chosen = np.array([3, 0])
    assert train.pixels[chosen].shape == (2, 3, 64, 64)
    few = dataclasses.replace(train, pixels=train.pixels[:2], votes=train.votes[:2])
    assert isinstance(few.pixels, np.ndarray)
    assert np.array_equal(few.pixels, train.pixels[np.array([0, 1])])


@pytest.mark.usefixtures("files_only")
def test_read_or_unread_the_same_faces_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fer(tmp_path, 6, 3)
    unread: list[FaceSet] = [*read_train_and_valid(tmp_path), read_held_out(tmp_path)[0]]
    monkeypatch.undo()
    read = [*read_train_and_valid(tmp_path), read_held_out(tmp_path)[0]]
    for before, after in zip(unread, read, strict=True):
        assert isinstance(before.pixels, PictureFiles)
        assert isinstance(after.pixels, np.ndarray)
        assert np.array_equal(before.pixels[:], after.pixels)
        assert np.array_equal(before.votes, after.votes)


@pytest.mark.usefixtures("files_only")
def test_the_face_without_a_split_of_its_own_is_held_out_by_its_file(tmp_path: Path) -> None:
    write_affectnet_set(tmp_path / "train_set", drawn(60), [index % 8 for index in range(60)])
    train, valid = read_train_and_valid(tmp_path)
    assert len(train) + len(valid) == 60
    assert 1 <= len(valid) <= 20
    assert np.array_equal(valid.pixels[:], read_train_and_valid(tmp_path)[1].pixels[:])


@pytest.mark.parametrize("content", [b"", b"not a picture", b"half"])
def test_a_damaged_picture_is_named(tmp_path: Path, content: bytes) -> None:
    write_affectnet_set(tmp_path / "val_set", drawn(3), [0, 1, 2])
    damaged = tmp_path / "val_set" / "images" / "1.jpg"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    with pytest.raises(DatasetError, match=r"images/1\.jpg cannot be read as a picture"):
        read_split(tmp_path, "valid")
