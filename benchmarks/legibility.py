"""Whether the pictures are legible to other eyes than those that the codec was taught by.

A bundle's own pixel classifier never saw a picture of the codec, but the codec saw it: it was the
teacher. Another one is trained here, of another size and from another seed, on faces alone, and
reads what the layers draw of held-out faces. It is compared with itself on the pixels, face by
face.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien.bundle import ALL_FILES, load_bundle
from trainer.compare.statistics import interval, resampled_weights
from trainer.config import StageConfig
from trainer.data.faces import EXPRESSIONS, FACE_SIZE
from trainer.data.layout import read_train_and_valid
from trainer.evaluate import CHUNK_FACES, analysed, recognised
from trainer.examples import as_float
from trainer.fit import limited
from trainer.loop import Loop
from trainer.models.resnet import ResNet18
from trainer.pictures import pictures
from trainer.stages import ClassifierStage

SEED = 99
BATCH_FACES = 256


@dataclasses.dataclass(frozen=True)
class _Training:
    out: Path
    seed: int = SEED
    checkpoint_steps: int = 200


def run(options: argparse.Namespace) -> dict[str, Any]:
    """What the other classifier reads: accuracies, and differences with their 95% intervals."""
    bundle = load_bundle(options.bundle, ALL_FILES)
    train, valid = read_train_and_valid(options.data)
    valid = limited(valid, options.faces)
    pixels, truth = valid.pixels[:], valid.majority
    torch.manual_seed(SEED)
    classifier = ResNet18(1, FACE_SIZE, options.width, len(EXPRESSIONS), 0.2)
    with tempfile.TemporaryDirectory() as folder:
        stage = ClassifierStage(
            StageConfig(epochs=options.epochs, calm_share=0.2), classifier, "classifier"
        )
        loop = Loop(stage, _Training(options.out or Path(folder)), train, valid)
        loop.fit()
        eyes = loop.averaged.module.eval()
    plain = _read(eyes, pixels) == truth
    figures: dict[str, Any] = {
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "faces": len(pixels),
        "accuracy_of_pixels": float(plain.mean()),
    }
    weights = resampled_weights(len(pixels))
    level = bundle.manifest.latent.default_level
    symbols, payloads, _ = recognised(bundle, analysed(bundle, pixels), level)
    for drawn in pictures(bundle, pixels, symbols, payloads, CHUNK_FACES):
        right = _read(eyes, drawn.faces) == truth
        name = f"after_{drawn.layers}_layers"
        figures[f"accuracy_{name}"] = float(right.mean())
        differences = right.astype(float) - plain
        figures[f"difference_{name}"] = float(differences.mean())
        low, high = interval(weights @ differences) or (np.nan, np.nan)
        figures |= {f"difference_low_{name}": low, f"difference_high_{name}": high}
    return figures


@torch.no_grad()
def _read(eyes: torch.nn.Module, faces: NDArray[np.uint8]) -> NDArray[np.int64]:
    device = next(eyes.parameters()).device
    parts = range(0, len(faces), BATCH_FACES)
    said = [eyes(as_float(faces[start : start + BATCH_FACES]).to(device)) for start in parts]
    return np.asarray(torch.cat(said).argmax(dim=1).cpu())
