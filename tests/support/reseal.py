"""Bundles that were tampered with, and whose manifest says so."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mien.bundle import Bundle, load_bundle, write_manifest


def reseal(
    folder: Path, bundle: Bundle, *, expressions: Sequence[str] = (), **files: bytes
) -> Bundle:
    """Copy a bundle, replace files (`classifier_onnx=…` is classifier.onnx), hash it anew.

    expressions: other names for what the classifier tells apart.
    """
    shutil.copytree(bundle.folder, folder)
    for name, data in files.items():
        (folder / name.replace("_", ".")).write_bytes(data)
    manifest = bundle.manifest
    write_manifest(
        folder,
        name=manifest.name,
        created=manifest.created,
        expressions=expressions or manifest.expressions,
        image=manifest.image,
        latent=manifest.latent,
        figures=manifest.figures,
        calibration=manifest.calibration,
    )
    return load_bundle(folder)
