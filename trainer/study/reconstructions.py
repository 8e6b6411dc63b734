"""The sheet of reconstructions: what each codec leaves of a few faces.

Of drawn faces, or of pictures that a user gives: faces of a dataset are not for publication.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.baselines.image_codecs import IMAGE_CODECS
from trainer.compare.methods import method
from trainer.compare.sheet import Cell, draw_sheet
from trainer.data.images import IMAGE_SUFFIXES, read_picture
from trainer.examples import as_float
from trainer.figures import psnr_db
from trainer.schematic import schematic_faces
from trainer.study.config import StudyConfig
from trainer.study.runs import load_codec, seed_folder

DRAWN_FACES = 6
SHOWN_RATES = (0, 3, 6)


def draw_reconstructions(config: StudyConfig, path: Path, pictures: Path | None) -> None:
    """Write the sheet of the pictures in a folder; of drawn faces where none is given.

    Raises FileNotFoundError for a folder without pictures.
    """
    faces = _drawn(config) if pictures is None else _given(config, pictures)
    rows = {"uncompressed": [Cell(face) for face in faces]}
    jpeg = IMAGE_CODECS["jpeg"]
    files = [jpeg.encode(face, jpeg.qualities[0]) for face in faces]
    rows["jpeg"] = [
        _cell(face, jpeg.decode(file, len(face)), len(file))
        for face, file in zip(faces, files, strict=True)
    ]
    folder = seed_folder(config, config.seeds[0])
    for name, checkpoint in (
        ("pretrained", config.out / "pretrain.pt"),
        ("finetuned", folder / "finetune.pt"),
        ("joint", folder / "joint.pt"),
    ):
        if checkpoint.with_suffix(".json").is_file():
            rows.update(_coded(config, name, checkpoint, faces))
    draw_sheet(path, rows)


def _coded(
    config: StudyConfig, name: str, checkpoint: Path, faces: NDArray[np.uint8]
) -> dict[str, list[Cell]]:
    codec = load_codec(config, checkpoint)
    codec.freeze_tables()
    rows = {}
    for rate in sorted({min(rate, codec.rates - 1) for rate in SHOWN_RATES}):
        files = codec.compress(as_float(faces), rate)
        x_hat = codec.decompress(files, *faces.shape[-2:])
        decoded = (x_hat * 255).round().byte().numpy()
        rows[f"{method(name).label}, rate {rate}"] = [
            _cell(face, seen, len(file))
            for face, seen, file in zip(faces, decoded, files, strict=True)
        ]
    return rows


def _cell(face: NDArray[np.uint8], decoded: NDArray[np.uint8], size: int) -> Cell:
    return Cell(decoded, size, f"{float(psnr_db(face[None], decoded[None])[0]):.1f} dB")


def _drawn(config: StudyConfig) -> NDArray[np.uint8]:
    faces = schematic_faces(DRAWN_FACES, config.face.size)
    return np.repeat(faces, config.face.channels, axis=1)


def _given(config: StudyConfig, folder: Path) -> NDArray[np.uint8]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"{folder} holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return np.stack([read_picture(path, config.face) for path in paths])
