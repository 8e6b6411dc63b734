"""The faces that both services get: of a dataset, of a clip, or those drawn for the probe."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_encoder.alignment import FaceAligner
from edge_encoder.detector import open_detector
from mien.bundle import Bundle
from mien.probe import load_probe

FACES = 512


@dataclass(frozen=True, eq=False)
class Sample:
    """Aligned faces, uint8 (N, 1, H, W), and where they are from.

    majority: int64 (N,), what most raters saw; None where nobody was asked.
    """

    pixels: NDArray[np.uint8]
    source: str
    majority: NDArray[np.int64] | None = None


def sample(options: argparse.Namespace, bundle: Bundle) -> Sample:
    """The dataset's held-out faces where there is one, else the clip's, else the drawn ones."""
    if options.data is not None:
        return of_dataset(options.data)
    if options.clip is not None:
        return Sample(of_clip(options.clip, bundle, options.detector_model), options.clip.name)
    return Sample(load_probe(bundle).faces, "drawn for the probe")


def of_dataset(folder: Path) -> Sample:
    """All held-out faces, with their labels."""
    # The trainer's extra is needed for a dataset only.
    from trainer.data.layout import read_held_out

    faces, split = read_held_out(folder)
    return Sample(faces.pixels[:], split, faces.majority)


def of_clip(clip: Path, bundle: Bundle, detector_model: Path | None) -> NDArray[np.uint8]:
    """The largest face of each frame of a video, as the edge cuts it out; FACES at most."""
    detector, aligner = open_detector(detector_model), FaceAligner(bundle.manifest.image)
    reader = cv2.VideoCapture(str(clip))
    crops: list[NDArray[np.uint8]] = []
    while len(crops) < FACES:
        there, image = reader.read()
        if not there:
            break
        found = sorted(detector.detect(np.asarray(image, np.uint8)), key=lambda face: -face.box[2])
        if found:
            crops.append(aligner.crop(np.asarray(image, np.uint8), found[0].landmarks))
    reader.release()
    if not crops:
        raise SystemExit(f"no face was found in {clip}")
    return np.stack(crops)
