"""What pages say in passing: commands and flags between backquotes, links, and how many or much."""

import re
import shlex
from pathlib import Path

import pytest

from tests.docs.command_lines import benchmark_takes, flags_in, flags_of
from tests.docs.pages import PAGES, ROOT, Command, spans
from tests.support.hostile import BEHAVIOURS

OURS = re.compile(
    r"(mien|mien-edge|mien-cloud|mien-train|python -m (?:benchmarks|tests\.fuzz))(?= )(?: [a-z]+)?"
)
MAKE = re.compile(r"(?:\w+=\S+ )*make ([a-z]+)\b")
# Flags of programs that are not ours.
OTHERS = {
    "--require-hashes": "pip",
    "--build": "docker compose",
    "--profile": "docker compose",
    "--nproc_per_node": "torchrun",
}
# The first words of what is signed, in decision 30.
NO_COMMAND = "mien bundle 1"
COMMANDS = [span for span in spans() if OURS.match(span.text) and span.text != NO_COMMAND]
MEASURED = [span for span in COMMANDS if re.match(r"python -m benchmarks \w+ --bundle", span.text)]


def program_of(span: Command) -> str:
    """As flags_of names it."""
    found = OURS.match(span.text)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("span", COMMANDS, ids=str)
def test_a_command_in_a_sentence_is_one_that_its_program_takes(span: Command) -> None:
    flags = flags_of()
    assert program_of(span) in flags, span.text
    assert flags_in(span.text) <= flags[program_of(span)], span.text


@pytest.mark.parametrize("span", MEASURED, ids=str)
def test_a_benchmark_in_a_sentence_is_complete(span: Command) -> None:
    benchmark_takes(shlex.split(span.text)[3:])


def test_every_flag_in_a_sentence_is_one_of_a_program() -> None:
    named = {str(span): flags_in(span.text) for span in spans()}
    ours = set().union(*flags_of().values())
    strange = {where: flags - ours - set(OTHERS) for where, flags in named.items()}
    assert not {where: flags for where, flags in strange.items() if flags}
    assert set(OTHERS) <= set().union(*named.values()), "one of the others is named no more"


def test_make_has_every_target_that_a_sentence_names() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {found[1] for span in spans() if (found := MAKE.match(span.text))}
    assert named
    assert named <= targets


def test_pages_count_the_ways_in_which_the_lab_breaks_streams() -> None:
    counted = r"(?:break the contract|that are broken) in (\w+) ways"
    said = {p.name: re.findall(counted, p.read_text(encoding="utf-8")) for p in PAGES}
    words = {13: "thirteen", 14: "fourteen", 15: "fifteen", 16: "sixteen"}
    ways = [words[len(BEHAVIOURS)]]
    assert {name: word for name, word in said.items() if word} == {
        "integrity.md": ways,
        "lab.md": ways,
    }


def test_compiled_decoding_is_as_much_faster_as_pages_promise() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    measured = re.search(r"compiled, without numba \| ([\d,]+); ([\d,]+) \|", readme)
    assert measured is not None
    compiled, plain = (float(figure.replace(",", "")) for figure in measured.groups())
    assert compiled / plain > 10
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert "several times as fast, in chunks of eight faces more than ten times" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there.read_text(encoding="utf-8")), link


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
