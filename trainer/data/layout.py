"""Which layout a folder has, and how to read a split of it."""

import contextlib
from pathlib import Path

from trainer.data.affectnet import (
    SETS,
    affectnet_tables,
    is_affectnet_set,
    read_affectnet_set,
    read_affectnet_table,
)
from trainer.data.errors import DatasetError, NoSplitError
from trainer.data.faces import (
    EXPRESSIONS,
    FaceSet,
    canonical_expression,
    held_out_share,
    in_memory,
    without_faces_of,
    without_repeats,
)
from trainer.data.ferplus import OFFICIAL_SPLITS, read_kaggle, read_official
from trainer.data.folders import read_class_folders
from trainer.data.images import GREY_48, FaceFormat
from trainer.data.rafdb import rafdb_labels, read_rafdb

FOLDER_SPLITS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test",),
}

# Of a dataset without a validation split, this much of training is held out.
VALID_SHARE = 0.1


def read_split(folder: Path, split: str, face_format: FaceFormat = GREY_48) -> FaceSet:
    """The faces of one split ("train", "valid" or "test") of a dataset folder.

    A folder that is itself one split (label.csv, class folders, or AffectNet's images and
    annotations) is read as it is. A split too large for memory stays in its files.
    Raises NoSplitError, naming the layouts, when the folder has none of them.
    """
    return in_memory(_open_split(folder, split, face_format))[0]


def read_held_out(folder: Path, face_format: FaceFormat = GREY_48) -> tuple[FaceSet, str]:
    """The faces to evaluate on, and the name of their split: test if there is one, else valid."""
    if _is_one_split(folder):
        return read_split(folder, "test", face_format), "all"
    for split in ("test", "valid"):
        try:
            return read_split(folder, split, face_format), split
        except NoSplitError:
            continue
    return read_split(folder, "train", face_format), "train"


def read_train_and_valid(
    folder: Path, face_format: FaceFormat = GREY_48
) -> tuple[FaceSet, FaceSet]:
    """Both splits for training; no face is in two splits, none twice in training.

    Where there is no validation split, a tenth of training is held out: the same faces each
    time that they are read in one format. Splits that are too large for memory together are
    compared by their files.
    """
    splits = _open_splits(folder, face_format)
    train, tests = splits.pop("train"), [splits[name] for name in splits if name == "test"]
    train = without_repeats(without_faces_of(train, *splits.values()))
    if "valid" in splits:
        valid = without_faces_of(splits["valid"], *tests)
    else:
        train, valid = held_out_share(train, VALID_SHARE)
    return train, in_memory(valid)[0]


def _open_splits(folder: Path, face_format: FaceFormat) -> dict[str, FaceSet]:
    """The splits that there are: all of them in memory, or all in their files."""
    found = {"train": _open_split(folder, "train", face_format)}
    if not _is_one_split(folder):
        for split in ("valid", "test"):
            with contextlib.suppress(NoSplitError):
                found[split] = _open_split(folder, split, face_format)
    return dict(zip(found, in_memory(*found.values()), strict=True))


def _open_split(folder: Path, split: str, face_format: FaceFormat) -> FaceSet:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder")
    if _is_one_split(folder):
        return _read_one(folder, face_format)
    labels = rafdb_labels(folder)
    if labels is not None:
        return read_rafdb(labels, split, face_format)
    if (folder / "fer2013.csv").is_file() and (folder / "fer2013new.csv").is_file():
        return read_kaggle(folder, split, face_format)
    for name in (OFFICIAL_SPLITS[split], SETS[split], *FOLDER_SPLITS[split]):
        if _is_one_split(folder / name):
            return _read_one(folder / name, face_format)
    if affectnet_tables(folder) is not None:
        return read_affectnet_table(folder, split, face_format)
    raise NoSplitError(
        f"{folder} holds no {split} split: expected {OFFICIAL_SPLITS[split]}/label.csv (FER+), "
        f"fer2013.csv with fer2013new.csv (Kaggle), {SETS[split]}/ or training.csv (AffectNet), "
        "EmoLabel/ (RAF-DB), or a folder for each expression"
    )


def _is_one_split(folder: Path) -> bool:
    return (folder / "label.csv").is_file() or is_affectnet_set(folder) or _has_classes(folder)


def _read_one(folder: Path, face_format: FaceFormat) -> FaceSet:
    if (folder / "label.csv").is_file():
        return read_official(folder, face_format)
    if is_affectnet_set(folder):
        return read_affectnet_set(folder, face_format)
    return read_class_folders(folder, face_format)


def _has_classes(folder: Path) -> bool:
    return folder.is_dir() and any(
        path.is_dir() and canonical_expression(path.name) in EXPRESSIONS
        for path in folder.iterdir()
    )
