"""Small datasets of drawn faces, written in the layouts that are published."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.schematic import schematic_faces


def drawn(count: int, first: int = 0) -> NDArray[np.uint8]:
    """Different faces, uint8 (count, 48, 48)."""
    return schematic_faces(first + count)[first:, 0]


def votes_for(count: int, seed: int) -> NDArray[np.int64]:
    """Ten votes a face, most of them for one of the eight expressions: int64 (count, 10)."""
    random = np.random.default_rng(seed)
    votes = np.zeros((count, 10), np.int64)
    for row in votes:
        first, second = random.choice(8, 2, replace=False)
        row[first], row[second] = 7, 3
    return votes


def write_official(folder: Path, faces: NDArray[np.uint8], votes: NDArray[np.int64]) -> None:
    """One split as FER+ lays it out."""
    folder.mkdir(parents=True)
    with (folder / "label.csv").open("w", newline="") as rows:
        writer = csv.writer(rows)
        for index, (face, counts) in enumerate(zip(faces, votes, strict=True)):
            name = f"fer{index:07d}.png"
            Image.fromarray(face).save(folder / name)
            writer.writerow([name, "(0, 0, 48, 48)", *counts.tolist()])


def write_fer(root: Path, train: int = 96, valid: int = 40) -> Path:
    """Both splits of an official layout with different faces."""
    write_official(root / "FER2013Train", drawn(train), votes_for(train, 0))
    write_official(root / "FER2013Valid", drawn(valid, train), votes_for(valid, 1))
    return root


def write_kaggle(root: Path, faces: NDArray[np.uint8], votes: NDArray[np.int64]) -> None:
    """fer2013.csv and fer2013new.csv: half Training, a quarter each of the other two."""
    root.mkdir(parents=True)
    usages = ["Training", "Training", "PublicTest", "PrivateTest"]
    columns = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    pixels, labels = ["emotion,pixels,Usage"], [f"Usage,Image name,{columns}"]
    for index, (face, counts) in enumerate(zip(faces, votes, strict=True)):
        usage = usages[index % 4]
        pixels.append(f"0,{' '.join(map(str, face.ravel().tolist()))},{usage}")
        labels.append(f"{usage},fer{index:07d}.png,{','.join(map(str, counts.tolist()))}")
    (root / "fer2013.csv").write_text("\n".join(pixels) + "\n")
    (root / "fer2013new.csv").write_text("\n".join(labels) + "\n")
