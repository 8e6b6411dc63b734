"""docs/errors.md lists every code that can reach a client, and none that cannot."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import cloud_recognizer
import edge_encoder
import mien
from cloud_recognizer.status import INTERNAL_CODE
from mien.errors import MienError
from mien.exit_codes import ExitCode

PAGE = Path(__file__).parents[3] / "docs" / "errors.md"


def import_everything() -> None:
    for package in (mien, edge_encoder, cloud_recognizer):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def classes(root: type[MienError]) -> Iterator[type[MienError]]:
    yield root
    for child in root.__subclasses__():
        yield from classes(child)


def rows(pattern: str) -> list[str]:
    return re.findall(pattern, PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_lists_exactly_the_codes_of_the_errors() -> None:
    import_everything()
    codes = {error.code for error in classes(MienError)} | {INTERNAL_CODE}
    assert set(rows(r"^\| `(\w+)` \|")) == codes


def test_no_two_errors_share_a_code() -> None:
    import_everything()
    errors = set(classes(MienError))
    assert len({error.code for error in errors}) == len(errors)


def test_the_page_lists_every_exit_code() -> None:
    assert [int(row) for row in rows(r"^\| (\d+) \|")] == sorted(ExitCode)
