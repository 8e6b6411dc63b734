"""The model card: what a bundle is, what it was trained on, what was measured, where it fails."""

import json
from pathlib import Path
from typing import Any

from trainer.evaluate import CHUNK_FACES
from trainer.run_folder import BUNDLE_NOTE

# What a run was told, that of the run it started from first.
CONFIGS = ("start.json", "config.json")
MEASURED = r"## Measured on the validation split.*?(?=## Training)"
"""A regular expression for the part of a card that `measured` writes."""

_CARD = """# {name}

A learned codec for aligned faces of 48×48 grey pixels and a classifier of eight facial
expressions that reads its latent. The two were trained jointly. A base layer is for naming the
expression, at {levels} quality levels; enhancement layers are for a face that can be looked at.

{measured}## Training

{train_faces} faces with FER+ vote distributions (Barsoum et al., 2016) on FER2013 (Goodfellow et
al., 2013), exact duplicates removed. A pixel classifier teaches: it is asked about each face as the
codec sees it, changed and blended with others. Analysis transform, gains, positional prior and
latent classifier were trained jointly for all levels, by the votes and by what the teacher said:
{base}. Then the enhancement, given the base: {enhancement}. Then what draws it, from the symbols
that devices choose: {synthesis}. Seed {seed}.
What is drawn is moved, untrained, to where the base says that the face lies.

## Use and limits

For naming the expression that a face shows. An expression is not a feeling, and the labels are
what raters saw in a picture. The faces come from web searches of about 2012: mostly frontal,
unevenly spread over age, skin and sex, and nobody measured how accuracy differs between them.
Contempt, disgust and fear are rare in the data and poorly recognised: read their rows above.
With enhancement layers the reconstruction is a picture of the person; treat it as personal data.
"""

_MEASURED = """## Measured on the validation split ({faces} faces)

Real coded bytes, chunks of {chunk_faces} faces, header, checksum, time, track and box included.
Faces that a first look leaves in doubt are looked at twice, as devices do.
The parameters of training, the averaging and the temperatures were chosen on this same split.

| quality level | bytes a face | majority accuracy | macro-F1 | pixel classifier that taught it, \
on what the base draws |
|---|---|---|---|---|
{level_rows}

| at the default level | |
|---|---|
| payload bytes a face | {payload_bytes_per_face:.2f} |
| majority accuracy from the payload | {accuracy:.2%} |
| the same, estimated without labels, as a recognizer does | {estimated_accuracy:.2%} |
| the label alone, told by the same networks on the device: one byte instead of a latent, and \
nothing else ever to be had from it | {label_alone_accuracy:.2%} |
| majority accuracy of the pixel classifier on uncompressed faces | {pixel_accuracy:.2%} |
| expected calibration error | {calibration_error:.3f} |
| PSNR of what the base alone draws | {psnr_db_after_0_layers:.2f} dB |
| PSNR with all layers | {psnr_db:.2f} dB |
| same face, told by the base (0.5 is chance) | {base_auc:.3f} |
| same face, told by the picture with all layers | {layers_auc:.3f} |
| same face, told by the pixels | {pixels_auc:.3f} |

| layers, on the base of the default level | bytes a face | PSNR | pixel classifier that taught \
it, on reconstructions |
|---|---|---|---|
{layer_rows}

More than the label: a fresh head, trained on what is decoded to tell how much raters agreed (the
correlation with what they did), and another to tell FER2013's own labels in seven classes, which
codec and classifier never saw; the same heads on pixels, and on what the pixel classifier's last
layer reads, are the measure. And how often two augmented photographs of one face are found more
alike than those of two (0.5 is chance).

| what is looked at | agreement of raters | FER2013's labels | same face |
|---|---|---|---|
{beyond_rows}

| expression, at the default level | faces | precision | recall | F1 |
|---|---|---|---|---|
{class_rows}

"""


def model_card(name: str, run: Path, train_faces: int, figures: dict[str, Any]) -> str:
    """Markdown for a bundle, from its run's folder and the figures of trainer.evaluate."""
    parts = [json.loads((run / file).read_text()) for file in CONFIGS if (run / file).exists()]

    path = run / BUNDLE_NOTE
    bundle_id = json.loads(path.read_text())["id"] if path.is_file() else None

    def trained(stage: str) -> str:
        each = [str(n) for part in parts if (n := part[stage]["epochs"])]
        epochs = " and then, with other settings, ".join(each)
        if not epochs:
            return f"as in bundle {bundle_id}" if bundle_id else "not done"
        return f"{epochs} epochs" + (f" from what bundle {bundle_id} has" if bundle_id else "")

    return _CARD.format(
        name=name,
        levels=len(figures["levels"]),
        measured=measured(figures),
        train_faces=train_faces,
        **{stage: trained(stage) for stage in ("base", "enhancement", "synthesis")},
        seed=parts[0]["seed"],
    )


def measured(figures: dict[str, Any]) -> str:
    """The part of a card that says what was measured."""
    level_rows = [
        f"| {level}{', the default' if level == figures['default_level'] else ''} "
        f"| {row['payload_bytes_per_face']:.2f} | {row['accuracy']:.2%} | {row['macro_f1']:.3f} "
        f"| {row['drawn_pixel_accuracy']:.2%} |"
        for level, row in enumerate(figures["levels"])
    ]
    class_rows = [
        f"| {expression} | {row['faces']} | {row['precision']:.3f} | {row['recall']:.3f} "
        f"| {row['f1']:.3f} |"
        for expression, row in figures["per_class"].items()
    ]
    beyond_rows = [
        f"| {name.replace('_', ' ')} | {row['agreement_correlation']:.3f} "
        f"| {_share(row.get('fer2013_accuracy'))} | {row['same_face_auc']:.3f} |"
        for name, row in figures["beyond"].items()
    ]
    return _MEASURED.format(
        beyond_rows="\n".join(beyond_rows),
        base_auc=figures["beyond"][f"level_{figures['default_level']}"]["same_face_auc"],
        layers_auc=figures["beyond"]["all_layers"]["same_face_auc"],
        pixels_auc=figures["beyond"]["pixels"]["same_face_auc"],
        chunk_faces=CHUNK_FACES,
        level_rows="\n".join(level_rows),
        layer_rows="\n".join(_layer_rows(figures)),
        class_rows="\n".join(class_rows),
        **figures,
    )


def _layer_rows(figures: dict[str, Any]) -> list[str]:
    rows, layers = [], 0
    while f"psnr_db_after_{layers}_layers" in figures:
        rows.append(_layer_row(figures, str(layers), f"_after_{layers}_layers"))
        layers += 1
    return [*rows, _layer_row(figures, f"{layers}, all", "")]


def _layer_row(figures: dict[str, Any], layers: str, suffix: str) -> str:
    return (
        f"| {layers} | {figures[f'bytes_per_face_with_layers{suffix}']:.1f} "
        f"| {figures[f'psnr_db{suffix}']:.2f} dB "
        f"| {figures[f'pixel_accuracy_of_reconstructions{suffix}']:.2%} |"
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"
