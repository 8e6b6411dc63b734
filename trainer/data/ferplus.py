"""FER+: vote counts for FER2013's faces (Barsoum et al., 2016, arXiv:1608.01041).

Two layouts: the official one, a folder of PNG files for each split with label.csv beside them,
and Kaggle's fer2013.csv (pixels) with Microsoft's fer2013new.csv (votes), row for row.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.data.errors import DatasetError, NoSplitError
from trainer.data.faces import EXPRESSIONS, FACE_SIZE, FaceSet
from trainer.data.images import FaceFormat, fitted
from trainer.data.pictures import Picture, PictureFiles

VOTE_COLUMNS = (*EXPRESSIONS, "unknown", "not-a-face")
OFFICIAL_SPLITS = {"train": "FER2013Train", "valid": "FER2013Valid", "test": "FER2013Test"}
# The numbers of fer2013.csv in order.
FER2013_LABELS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
KAGGLE_USAGE = {"train": "Training", "valid": "PublicTest", "test": "PrivateTest"}


def distributions(
    counts: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Counter[str]]:
    """Vote distributions after FER+'s rules.

    counts: int64 (N, 10) in the order of VOTE_COLUMNS. Single votes are outliers and dropped;
    faces whose majority is unknown or not-a-face, or that keep no vote, are left out.
    Returns votes float32 (M, 8), the mask (N,) of the M faces kept, and the reasons.
    """
    kept_votes = np.where(counts > 1, counts, 0)
    winner = kept_votes.argmax(axis=1)
    empty = kept_votes[:, :8].sum(axis=1) == 0
    unlabelled = (winner >= 8) | empty
    reasons = Counter(
        {
            "unknown": int((winner == 8).sum()),
            "not-a-face": int((winner == 9).sum()),
            "no agreed vote": int((empty & (winner < 8)).sum()),
        }
    )
    votes = kept_votes[~unlabelled, :8].astype(np.float32)
    return votes / votes.sum(axis=1, keepdims=True), ~unlabelled, reasons


def read_official(folder: Path, face_format: FaceFormat) -> FaceSet:
    """One split in the official layout: PNG files and label.csv in the same folder.

    FER2013's own labels come from a fer2013.csv of `image,emotion` beside them, if it is there.
    Raises DatasetError when a row is not `name, box, ten counts` or a picture is missing.
    """
    originals = _original_labels(folder / "fer2013.csv")
    original: list[int] = []
    pictures: list[Picture] = []
    counts: list[list[int]] = []
    with (folder / "label.csv").open(newline="") as rows:
        for number, row in enumerate(csv.reader(rows), start=1):
            if number == 1 and len(row) == 12 and not row[2].strip().isdigit():
                continue  # some copies have a header
            if len(row) != 12:
                raise DatasetError(
                    f"{folder / 'label.csv'} line {number}: expected 12 columns "
                    f"(name, box, ten vote counts), got {len(row)}"
                )
            pictures.append(Picture(folder / row[0]))
            counts.append([int(float(cell)) for cell in row[2:]])
            original.append(originals.get(row[0], -1))
    if not pictures:
        raise DatasetError(f"{folder / 'label.csv'} names no picture")
    votes, keep, reasons = distributions(np.array(counts, dtype=np.int64))
    kept = np.array(original, dtype=np.int64)[keep] if originals else None
    return FaceSet(PictureFiles(pictures, face_format).subset(keep), votes, reasons, kept)


def _original_labels(table: Path) -> dict[str, int]:
    if not table.is_file():
        return {}
    with table.open(newline="") as rows:
        named = {row.get("image") or "": row.get("emotion") or "" for row in csv.DictReader(rows)}
    if "" in named:
        raise DatasetError(f"{table}: expected `image,emotion`, a row has no image")
    return {name: _label(label, f"{table}, {name}") for name, label in named.items()}


def _label(cell: str, where: str) -> int:
    """An index into FER2013_LABELS. where: what to call the cell for people."""
    if cell not in {str(number) for number in range(len(FER2013_LABELS))}:
        raise DatasetError(f"{where}: expected an emotion of 0 to 6, got {cell!r}")
    return int(cell)


def read_kaggle(folder: Path, split: str, face_format: FaceFormat) -> FaceSet:
    """One split of fer2013.csv, labelled by the same rows of fer2013new.csv."""
    pixels: list[NDArray[np.uint8]] = []
    counts: list[list[int]] = []
    original: list[int] = []
    for number, (face, votes) in enumerate(_kaggle_rows(folder), start=2):
        if face["Usage"] != votes["Usage"]:
            raise DatasetError(
                f"row {number}: fer2013.csv says {face['Usage']}, "
                f"fer2013new.csv says {votes['Usage']}; the files are not row for row"
            )
        if face["Usage"] != KAGGLE_USAGE[split]:
            continue
        values = np.array(face["pixels"].split(), dtype=np.uint8)
        if values.size != FACE_SIZE * FACE_SIZE:
            raise DatasetError(f"row {number}: expected 2304 pixels, got {values.size}")
        picture = Image.fromarray(values.reshape(FACE_SIZE, FACE_SIZE))
        pixels.append(fitted(picture, face_format))
        counts.append([int(cell) for cell in list(votes.values())[2:12]])
        original.append(_label(face.get("emotion") or "", f"fer2013.csv row {number}"))
    if not pixels:
        raise NoSplitError(f"{folder / 'fer2013.csv'} has no row of {KAGGLE_USAGE[split]}")
    shares, keep, reasons = distributions(np.array(counts, dtype=np.int64))
    return FaceSet(
        np.stack(pixels)[keep], shares, reasons, np.array(original, dtype=np.int64)[keep]
    )


def _kaggle_rows(folder: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    with (
        (folder / "fer2013.csv").open(newline="") as faces,
        (folder / "fer2013new.csv").open(newline="") as votes,
    ):
        yield from zip(csv.DictReader(faces), csv.DictReader(votes), strict=True)
