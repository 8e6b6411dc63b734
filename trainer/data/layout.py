"""Which layout a folder has, and how to read a split of it."""

from pathlib import Path

from trainer.data.faces import EXPRESSIONS, FaceSet, canonical_expression, without_duplicates
from trainer.data.ferplus import (
    OFFICIAL_SPLITS,
    DatasetError,
    NoSplitError,
    read_kaggle,
    read_official,
)
from trainer.data.folders import read_class_folders

FOLDER_SPLITS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test",),
}


def read_split(folder: Path, split: str) -> FaceSet:
    """The faces of one split ("train", "valid" or "test") of a dataset folder.

    A folder that is itself one split (label.csv, or class folders) is read as it is.
    Raises NoSplitError, naming the layouts, when the folder has none of them.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder")
    if (folder / "label.csv").is_file():
        return read_official(folder)
    if (folder / OFFICIAL_SPLITS[split] / "label.csv").is_file():
        return read_official(folder / OFFICIAL_SPLITS[split])
    if (folder / "fer2013.csv").is_file() and (folder / "fer2013new.csv").is_file():
        return read_kaggle(folder, split)
    for name in FOLDER_SPLITS[split]:
        if (folder / name).is_dir():
            return read_class_folders(folder / name)
    if any(
        canonical_expression(path.name) in EXPRESSIONS for path in folder.iterdir() if path.is_dir()
    ):
        return read_class_folders(folder)
    raise NoSplitError(
        f"{folder} holds no {split} split: expected {OFFICIAL_SPLITS[split]}/label.csv (FER+), "
        "fer2013.csv with fer2013new.csv (Kaggle), or a folder for each expression"
    )


def read_held_out(folder: Path) -> tuple[FaceSet, str]:
    """The faces to evaluate on, and the name of their split: test if there is one, else valid."""
    for split in ("test", "valid"):
        try:
            return read_split(folder, split), split
        except NoSplitError:
            continue
    return read_split(folder, "train"), "train"


def read_train_and_valid(folder: Path) -> tuple[FaceSet, FaceSet]:
    """Both splits for training, without the training faces that occur twice or in valid."""
    valid = read_split(folder, "valid")
    return without_duplicates(read_split(folder, "train"), valid), valid
