"""Bundles that were tampered with, and whose manifest says so."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mien.bundle import Bundle, load_bundle, write_manifest


def reseal(
    folder: Path, bundle: Bundle, *, name: str = "", expressions: Sequence[str] = (), **files: bytes
) -> Bundle:
    """Copy a bundle, replace files (`classifier_onnx=…` is classifier.onnx), hash it anew.

    name: another one; it changes the bundle id and nothing else. expressions: other names for what
    the classifier tells apart.
    """
    shutil.copytree(bundle.folder, folder)
    for file, data in files.items():
        (folder / file.replace("_", ".")).write_bytes(data)
    manifest = bundle.manifest
    write_manifest(
        folder,
        name=name or manifest.name,
        created=manifest.created,
        expressions=expressions or manifest.expressions,
        image=manifest.image,
        latent=manifest.latent,
        figures=manifest.figures,
        calibration=manifest.calibration,
    )
    return load_bundle(folder)
