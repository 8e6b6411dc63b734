"""A folder for each class, as Kaggle's copies of FER2013 and RAF-DB come."""

from collections import Counter
from pathlib import Path

from trainer.data.faces import EXPRESSIONS, FaceSet, canonical_expression, labelled
from trainer.data.images import IMAGE_SUFFIXES, FaceFormat
from trainer.data.pictures import Picture, PictureFiles


def read_class_folders(folder: Path, face_format: FaceFormat) -> FaceSet:
    """Pictures in `folder/<expression>/`; folders of other names are counted and left out."""
    pictures: list[Picture] = []
    labels: list[int] = []
    left_out = Counter[str]()
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        paths = sorted(p for p in class_folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        expression = canonical_expression(class_folder.name)
        if expression not in EXPRESSIONS:
            left_out[f"label {class_folder.name}"] += len(paths)
            continue
        pictures += [Picture(path) for path in paths]
        labels += [EXPRESSIONS.index(expression)] * len(paths)
    return labelled(PictureFiles(pictures, face_format), labels, left_out)
