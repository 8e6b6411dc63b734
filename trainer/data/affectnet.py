"""AffectNet (Mollahosseini, Hasani and Mahoor, 2017, arXiv:1708.03985) in its two layouts.

The one that is given out now, cropped faces with an array of one label each:

    train_set/images/<id>.jpg    train_set/annotations/<id>_exp.npy    val_set/...

and the first one, whole pictures with a table of labels and boxes:

    Manually_Annotated_file_lists/training.csv    .../validation.csv
    Manually_Annotated_Images/<number>/<name>.jpg

No test split is public.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trainer.data.errors import DatasetError, NoSplitError
from trainer.data.faces import EXPRESSIONS, FaceSet, labelled
from trainer.data.images import IMAGE_SUFFIXES, Box, FaceFormat
from trainer.data.pictures import Picture, PictureFiles

SETS = {"train": "train_set", "valid": "val_set", "test": "test_set"}
TABLES = {"train": "training.csv", "valid": "validation.csv"}
LISTS = ("Manually_Annotated_file_lists", "Manually_Annotated/Manually_Annotated_file_lists", ".")
IMAGES = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", ".")
COLUMNS = (
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
)
# By the number of the label; what is none of EXPRESSIONS is left out.
LABELS = (
    *("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"),
    *("none", "uncertain", "no face"),
)


def is_affectnet_set(folder: Path) -> bool:
    """Whether a folder is one split of the layout with arrays."""
    return (folder / "images").is_dir() and (folder / "annotations").is_dir()


def read_affectnet_set(folder: Path, face_format: FaceFormat) -> FaceSet:
    """One split of the layout with arrays.

    Raises DatasetError for a picture without a label and a label that is not 0 to 10.
    """
    entries = []
    paths = (p for p in (folder / "images").iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    for path in sorted(paths):
        annotation = folder / "annotations" / f"{path.stem}_exp.npy"
        entries.append((Picture(path), _label(_array(annotation), str(annotation))))
    return _chosen(entries, face_format, Counter())


def affectnet_tables(folder: Path) -> Path | None:
    """The folder of training.csv and validation.csv, None where the layout is another."""
    for name in LISTS:
        if any((folder / name / table).is_file() for table in TABLES.values()):
            return folder / name
    return None


def read_affectnet_table(folder: Path, split: str, face_format: FaceFormat) -> FaceSet:
    """One split of the layout with tables; each face is cut out by its box.

    Raises DatasetError for a row that is not as COLUMNS says or a missing picture; NoSplitError
    where the split has no table.
    """
    lists = affectnet_tables(folder)
    if lists is None or not (lists / TABLES.get(split, "none")).is_file():
        raise NoSplitError(f"{folder} has no table of a {split} split of AffectNet")
    images = next(folder / name for name in IMAGES if (folder / name).is_dir())
    entries, left_out = [], Counter[str]()
    for where, row in _rows(lists / TABLES[split]):
        label = _label(row["expression"], where)
        box = _box(row, where) if LABELS[label] in EXPRESSIONS else None
        if box and box.width <= 0:
            left_out["no box"] += 1
            continue
        entries.append((Picture(images / row["subDirectory_filePath"], box), label))
    return _chosen(entries, face_format, left_out)


def _rows(table: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row and what to call it; validation.csv was published without a header."""
    with table.open(newline="") as lines:
        for number, cells in enumerate(csv.reader(lines), start=1):
            where = f"{table} line {number}"
            if len(cells) != len(COLUMNS):
                raise DatasetError(
                    f"{where}: expected {len(COLUMNS)} columns ({', '.join(COLUMNS)}), "
                    f"got {len(cells)}"
                )
            if cells[0] != COLUMNS[0]:
                yield where, dict(zip(COLUMNS, cells, strict=True))


def _chosen(
    entries: list[tuple[Picture, int]], face_format: FaceFormat, left_out: Counter[str]
) -> FaceSet:
    chosen = [(picture, label) for picture, label in entries if LABELS[label] in EXPRESSIONS]
    others = Counter(LABELS[label] for _, label in entries if LABELS[label] not in EXPRESSIONS)
    pixels = PictureFiles([picture for picture, _ in chosen], face_format)
    labels = [EXPRESSIONS.index(LABELS[label]) for _, label in chosen]
    return labelled(pixels, labels, left_out + others)


def _array(path: Path) -> str:
    try:
        # A string of digits in an array without dimensions, as it was published.
        return str(np.load(path, allow_pickle=False).item())
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing: its picture has no label") from error
    except (ValueError, EOFError, OSError) as error:
        raise DatasetError(f"{path} does not hold one label: {error}") from error


def _label(text: str, where: str) -> int:
    digits = text.strip().removesuffix(".0")
    if not digits.isdecimal() or int(digits) >= len(LABELS):
        raise DatasetError(f"{where}: expected an expression, 0 to {len(LABELS) - 1}; got {text!r}")
    return int(digits)


def _box(row: dict[str, str], where: str) -> Box:
    try:
        x, y, width, height = (int(float(row[name])) for name in COLUMNS[1:5])
    except ValueError as error:
        raise DatasetError(f"{where}: the face's box is not of numbers: {error}") from error
    return Box(x, y, width, height)
