"""A folder for each class, as Kaggle's copies of FER2013 and RAF-DB come."""

from collections import Counter
from pathlib import Path

import numpy as np

from trainer.data.faces import EXPRESSIONS, FACE_SIZE, FaceSet, canonical_expression
from trainer.data.images import IMAGE_SUFFIXES, read_grey


def read_class_folders(folder: Path) -> FaceSet:
    """Pictures in `folder/<expression>/`; folders of other names are counted and left out."""
    pixels, labels, left_out = [], [], Counter[str]()
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        pictures = sorted(p for p in class_folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        expression = canonical_expression(class_folder.name)
        if expression not in EXPRESSIONS:
            left_out[f"label {class_folder.name}"] += len(pictures)
            continue
        for picture in pictures:
            pixels.append(read_grey(picture, FACE_SIZE))
            labels.append(EXPRESSIONS.index(expression))
    faces = np.stack(pixels)[:, None] if pixels else np.zeros((0, 1, FACE_SIZE, FACE_SIZE))
    return FaceSet(
        faces.astype(np.uint8),
        np.eye(len(EXPRESSIONS), dtype=np.float32)[np.array(labels, dtype=np.int64)],
        left_out,
    )
