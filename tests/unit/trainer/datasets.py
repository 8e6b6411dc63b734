"""Small datasets of drawn faces, written in the layouts that are published."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.schematic import schematic_faces

TINT = (1.0, 0.8, 0.6)


def drawn(count: int, first: int = 0, side: int = 48) -> NDArray[np.uint8]:
    """Different faces, uint8 (count, side, side)."""
    return schematic_faces(first + count, side)[first:, 0]


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
    labels = [f"fer{index:07d}.png,{index % 7}" for index in range(len(faces))]
    (folder / "fer2013.csv").write_text("\n".join(["image,emotion", *labels]) + "\n")


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
        pixels.append(f"{index % 7},{' '.join(map(str, face.ravel().tolist()))},{usage}")
        labels.append(f"{usage},fer{index:07d}.png,{','.join(map(str, counts.tolist()))}")
    (root / "fer2013.csv").write_text("\n".join(pixels) + "\n")
    (root / "fer2013new.csv").write_text("\n".join(labels) + "\n")


def in_colour(face: NDArray[np.uint8]) -> Image.Image:
    """A drawn face (H, W) with a reddish light, so that its channels differ."""
    return Image.merge("RGB", [Image.fromarray((face * share).astype(np.uint8)) for share in TINT])


def write_affectnet_set(folder: Path, faces: NDArray[np.uint8], labels: list[int]) -> None:
    """One split of AffectNet as it is given out now: numbered crops and an array for each."""
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    for index, (face, label) in enumerate(zip(faces, labels, strict=True)):
        in_colour(face).save(folder / "images" / f"{index}.jpg", quality=95)
        np.save(folder / "annotations" / f"{index}_exp.npy", np.array(str(label)))
        np.save(folder / "annotations" / f"{index}_val.npy", np.array("0.5"))


def write_affectnet_table(
    root: Path, table: str, faces: NDArray[np.uint8], labels: list[int], *, header: bool
) -> None:
    """One table of AffectNet's first layout; each face is in the lower right of its picture."""
    images = root / "Manually_Annotated_Images"
    side = faces.shape[1]
    columns = "subDirectory_filePath face_x face_y face_width face_height facial_landmarks"
    lines = [",".join([*columns.split(), "expression,valence,arousal"])] if header else []
    for index, (face, label) in enumerate(zip(faces, labels, strict=True)):
        name = f"{index}/{Path(table).stem}{index}.png"
        picture = Image.new("RGB", (side * 2 + 7, side * 2), (250, 250, 250))
        picture.paste(in_colour(face), (side + 3, side))
        (images / str(index)).mkdir(parents=True, exist_ok=True)
        picture.save(images / name)
        box = f"{side + 3},{side},{side},{side}" if label < 9 else "NULL,NULL,NULL,NULL"
        lines.append(f"{name},{box},1.5;2.5;3.5,{label},-0.2,0.4")
    (root / "Manually_Annotated_file_lists").mkdir(exist_ok=True)
    (root / "Manually_Annotated_file_lists" / table).write_text("\n".join(lines) + "\n")


def write_rafdb(root: Path, faces: NDArray[np.uint8], names: list[str], labels: list[int]) -> None:
    """RAF-DB's basic/ folder; names are train_00001 and the like."""
    (root / "EmoLabel").mkdir(parents=True)
    (root / "Image" / "aligned").mkdir(parents=True)
    lines = [f"{name}.jpg {label}" for name, label in zip(names, labels, strict=True)]
    (root / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    for name, face in zip(names, faces, strict=True):
        in_colour(face).save(root / "Image" / "aligned" / f"{name}_aligned.jpg", quality=95)
