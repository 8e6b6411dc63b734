"""Which layout a folder has, and how to read a split of it."""

from pathlib import Path

from trainer.data.faces import (
    EXPRESSIONS,
    FaceSet,
    canonical_expression,
    held_out_share,
    without_faces_of,
    without_repeats,
)
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


# Of a dataset without a validation split, this much of training is held out.
VALID_SHARE = 0.1


def read_split(folder: Path, split: str) -> FaceSet:
    """The faces of one split ("train", "valid" or "test") of a dataset folder.

    A folder that is itself one split (label.csv, or class folders) is read as it is.
    Raises NoSplitError, naming the layouts, when the folder has none of them.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder")
    if (folder / "label.csv").is_file():
        return read_official(folder)
    if _has_classes(folder):
        return read_class_folders(folder)
    if (folder / OFFICIAL_SPLITS[split] / "label.csv").is_file():
        return read_official(folder / OFFICIAL_SPLITS[split])
    if (folder / "fer2013.csv").is_file() and (folder / "fer2013new.csv").is_file():
        return read_kaggle(folder, split)
    for name in FOLDER_SPLITS[split]:
        if (folder / name).is_dir():
            return read_class_folders(folder / name)
    raise NoSplitError(
        f"{folder} holds no {split} split: expected {OFFICIAL_SPLITS[split]}/label.csv (FER+), "
        "fer2013.csv with fer2013new.csv (Kaggle), or a folder for each expression"
    )


def read_held_out(folder: Path) -> tuple[FaceSet, str]:
    """The faces to evaluate on, and the name of their split: test if there is one, else valid."""
    if _is_one_split(folder):
        return read_split(folder, "test"), "all"
    for split in ("test", "valid"):
        faces = _if_there(folder, split)
        if faces is not None:
            return faces, split
    return read_split(folder, "train"), "train"


def read_train_and_valid(folder: Path) -> tuple[FaceSet, FaceSet]:
    """Both splits for training; no face is in two splits, none twice in training.

    Where there is no validation split, a tenth of training is held out.
    """
    train = read_split(folder, "train")
    if _is_one_split(folder):
        return held_out_share(without_repeats(train), VALID_SHARE)
    test, valid = _if_there(folder, "test"), _if_there(folder, "valid")
    tests = [test] if test is not None else []
    if valid is None:
        return held_out_share(without_repeats(without_faces_of(train, *tests)), VALID_SHARE)
    return without_repeats(without_faces_of(train, valid, *tests)), without_faces_of(valid, *tests)


def _if_there(folder: Path, split: str) -> FaceSet | None:
    try:
        return read_split(folder, split)
    except NoSplitError:
        return None


def _is_one_split(folder: Path) -> bool:
    return (folder / "label.csv").is_file() or _has_classes(folder)


def _has_classes(folder: Path) -> bool:
    return folder.is_dir() and any(
        path.is_dir() and canonical_expression(path.name) in EXPRESSIONS
        for path in folder.iterdir()
    )
