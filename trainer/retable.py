"""New tables for a bundle whose networks stay, and its figures measured again."""

import re
import shutil
from pathlib import Path
from typing import Any

from mien.bundle import load_bundle
from trainer.card import MEASURED, measured
from trainer.data.layout import read_train_and_valid
from trainer.evaluate import BUNDLE_FILES
from trainer.export import finish, write_tables


def retable(source: Path, data: Path, folder: Path) -> str:
    """Copy a bundle with new tables; return the id of the copy.

    data: the dataset it was trained on; rows are counted on its training faces, and the figures of
    manifest and card measured on its validation faces. Raises BundleError, DatasetError,
    FileExistsError when the folder is there.
    """
    bundle = load_bundle(source, BUNDLE_FILES)
    train, valid = read_train_and_valid(data)
    shutil.copytree(source, folder)
    channels = tuple(tables.shape[0] for tables in bundle.layer_tables())
    write_tables(folder, bundle.tables.gains, train, valid, channels)
    card = (source / "MODEL_CARD.md").read_text()
    name = bundle.manifest.name
    return finish(folder, train, valid, name, lambda figures: _renewed(card, figures))


def _renewed(card: str, figures: dict[str, Any]) -> str:
    """The card with its measured part written anew."""
    return re.sub(MEASURED, lambda _: measured(figures), card, flags=re.DOTALL)
