"""RAF-DB, the basic expressions (Li, Deng and Du, CVPR 2017), in its official layout.

    basic/EmoLabel/list_patition_label.txt    train_00001.jpg 5
    basic/Image/aligned/train_00001_aligned.jpg

The folder is basic/ or the one that holds it. It has no validation split.
"""

from collections import Counter
from pathlib import Path

from trainer.data.errors import DatasetError, NoSplitError
from trainer.data.faces import EXPRESSIONS, FaceSet, labelled
from trainer.data.images import FaceFormat
from trainer.data.pictures import Picture, PictureFiles

# The misspelt one is what the authors publish.
LABEL_FILES = ("list_patition_label.txt", "list_partition_label.txt")
# Label 1 is the first of these.
LABELS = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")


def rafdb_labels(folder: Path) -> Path | None:
    """The list of labels of a RAF-DB folder, None where the layout is another."""
    for root in (folder, folder / "basic"):
        for name in LABEL_FILES:
            if (root / "EmoLabel" / name).is_file():
                return root / "EmoLabel" / name
    return None


def read_rafdb(labels: Path, split: str, face_format: FaceFormat) -> FaceSet:
    """The aligned faces of "train" or "test", 100×100 in colour, by their list of labels.

    Raises DatasetError for a line that is not `name label`, a label that is not 1 to 7, or a
    missing picture; NoSplitError for a split that the list does not name.
    """
    pictures: list[Picture] = []
    expressions: list[int] = []
    for number, line in enumerate(labels.read_text().splitlines(), start=1):
        name, label = _entry(line, f"{labels} line {number}")
        if name.startswith(f"{split}_"):
            stem, _, suffix = name.rpartition(".")
            aligned = labels.parents[1] / "Image" / "aligned" / f"{stem}_aligned.{suffix}"
            pictures.append(Picture(aligned))
            expressions.append(EXPRESSIONS.index(LABELS[label - 1]))
    if not pictures:
        raise NoSplitError(f"{labels} names no picture of a {split} split")
    return labelled(PictureFiles(pictures, face_format), expressions, Counter())


def _entry(line: str, where: str) -> tuple[str, int]:
    cells = line.split()
    if len(cells) != 2 or "." not in cells[0] or cells[1] not in tuple("1234567"):
        raise DatasetError(
            f"{where}: expected `train_00001.jpg 5`, a label of 1 to 7; got {line!r}"
        )
    return cells[0], int(cells[1])
