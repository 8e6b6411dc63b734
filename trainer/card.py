"""The model card: what a bundle is, what it was trained on, what was measured, where it fails."""

import json
from pathlib import Path
from typing import Any

from trainer.evaluate import CHUNK_FACES

# What a run was told, that of the run it started from first.
CONFIGS = ("start.json", "config.json")

_CARD = """# {name}

A learned codec for aligned faces of 48×48 grey pixels and a classifier of eight facial
expressions that reads its latent. The two were trained jointly.

## Measured on the validation split ({faces} faces)

Real coded bytes, chunks of {chunk_faces} faces, header, checksum, time, track and box included.
The parameters of training, the averaging and the temperature were chosen on this same split.

| | |
|---|---|
| majority accuracy from the payload | {accuracy:.2%} |
| the same, estimated without labels, as a recognizer does | {estimated_accuracy:.2%} |
| majority accuracy of the pixel classifier on uncompressed faces | {pixel_accuracy:.2%} |
| macro-F1 | {macro_f1:.3f} |
| expected calibration error | {calibration_error:.3f} |
| payload bytes a face | {payload_bytes_per_face:.2f} |
| of which the latent, by the tables | {latent_ideal_bytes_per_face:.2f} |
| PSNR of the reconstruction | {psnr_db:.2f} dB |

| expression | faces | precision | recall | F1 |
|---|---|---|---|---|
{per_class}

## Training

{train_faces} faces with FER+ vote distributions (Barsoum et al., 2016) on FER2013 (Goodfellow et
al., 2013), exact duplicates removed. First a pixel classifier, {classifier_epochs} epochs; then
analysis transform, positional prior, synthesis transform and latent classifier jointly,
{joint_epochs} epochs, taught by votes and by the pixel classifier. Seed {seed}.

## Use and limits

For naming the expression that a face shows. An expression is not a feeling, and the labels are
what raters saw in a picture. The faces come from web searches of about 2012: mostly frontal,
unevenly spread over age, skin and sex, and nobody measured how accuracy differs between them.
Contempt, disgust and fear are rare in the data and poorly recognised: read their rows above.
The reconstruction is a picture that resembles the face; treat it as personal data.
"""


def model_card(name: str, run: Path, train_faces: int, figures: dict[str, Any]) -> str:
    """Markdown for a bundle, from its run's folder and the figures of trainer.evaluate."""
    parts = [json.loads((run / file).read_text()) for file in CONFIGS if (run / file).exists()]
    rows = "\n".join(
        f"| {expression} | {row['faces']} | {row['precision']:.3f} | {row['recall']:.3f} "
        f"| {row['f1']:.3f} |"
        for expression, row in figures["per_class"].items()
    )
    return _CARD.format(
        name=name,
        chunk_faces=CHUNK_FACES,
        train_faces=train_faces,
        classifier_epochs=parts[0]["classifier"]["epochs"],
        joint_epochs=" and then, with other settings, ".join(
            str(part["joint"]["epochs"]) for part in parts
        ),
        seed=parts[0]["seed"],
        **{**figures, "per_class": rows},
    )
