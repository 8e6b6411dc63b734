"""What the pages tell a reader to type: commands and programs in blocks, words in sentences."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Command:
    """One command, or one whole block of another language.

    page: relative to the root. line: in the page, from 1. language: what the block says it is.
    text: without comments, and in one line where it is a command.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def commands(*languages: str) -> list[Command]:
    """Those of all pages, in the order in which a page is read."""
    found = chain.from_iterable(map(_commands_of, PAGES))
    return [command for command in found if command.language in languages]


def spans() -> list[Command]:
    """What stands between backquotes within sentences and tables."""
    return list(chain.from_iterable(map(_spans_of, PAGES)))


def _commands_of(page: Path) -> Iterator[Command]:
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    for block in _BLOCK.finditer(text):
        _, language, inside = block.groups()
        first = text.count("\n", 0, block.start()) + 2
        if language == "sh":
            for line, command in _lines(inside):
                yield Command(name, first + line, language, command)
        else:
            yield Command(name, first, language, inside)


def _lines(block: str) -> Iterator[tuple[int, str]]:
    """(Line, command) for each; what a backslash continues is one."""
    for line in re.finditer(r"(?:.*\\\n)*.+", block):
        command = re.sub(r"(^|\s+)# .*", "", re.sub(r"\\\n\s*", "", line[0])).strip()
        if command:
            yield block.count("\n", 0, line.start()), command


def _spans_of(page: Path) -> Iterator[Command]:
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    # The lines stay, so that their numbers do.
    prose = _BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
    for span in _SPAN.finditer(prose):
        line = prose.count("\n", 0, span.start()) + 1
        yield Command(name, line, "", " ".join(span[1].split()))
