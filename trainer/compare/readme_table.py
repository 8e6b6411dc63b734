"""The table of docs/researcher.md, filled from docs/results/results.json."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.compare.methods import method
from trainer.compare.results import read_results
from trainer.compare.targets import PAPER
from trainer.compare.words import NONE, number, percent, seeds_span, signed, span, table

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
_ROWS = ("finetuned", "joint", "adapted", "original-on-joint")


def fill_readme(readme: Path, out: Path) -> None:
    """Write the table between the marks of readme, from `out/results.json`.

    Raises ValueError where the marks are not there, once and in order.
    """
    block = readme_table(read_results(out), link_to_report(readme, out))
    readme.write_text(with_table(readme.read_text(), block))


def link_to_report(page: Path, out: Path) -> str:
    """Where the report of out lies, as a link on page has it."""
    return Path(os.path.relpath(out / "README.md", page.parent)).as_posix()


def with_table(text: str, block: str) -> str:
    """text, with block between the marks. Raises ValueError as fill_readme."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"expected one {BEGIN} and, after it, one {END}")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def readme_table(results: Mapping[str, Any], report: str) -> str:
    """What stands between the marks: deltas against the generic codec, and the classifiers.

    report: the link to all figures.
    """
    again = results.get("kept_back")
    head = ["against the generic learned codec", "bytes (BD-rate)", "95%", "accuracy (BD), points"]
    head += ["95%", "seeds", "in the paper"]
    head += ["on faces kept back"] if again else []
    names = [name for name in _ROWS if name in results["against_anchor"]]
    rows = [[*_row(results, name), *([_short(again, name)] if again else [])] for name in names]
    return "\n\n".join([_about(results, report), table(head, rows), _classifiers(results)])


def _about(results: Mapping[str, Any], report: str) -> str:
    return (
        f"{number(results['faces'], 0)} faces of {results['split'] or 'the held-out split'}, real "
        f"coded bytes; intervals are paired bootstraps over faces, and the range is that of the "
        f"seeds. Curves, baselines and all figures: [docs/results]({report})."
    )


def _row(results: Mapping[str, Any], name: str) -> list[str]:
    against = results["against_anchor"][name]
    rate, accuracy = against["bd_rate_percent"], against["bd_accuracy_points"]
    seeds = seeds_span(rate, 1, "%"), seeds_span(accuracy)
    paper = PAPER.get(name)
    return [
        method(name).label,
        signed(rate["value"], 1, "%"),
        span(rate.get("interval"), 1, "%"),
        signed(accuracy["value"]),
        span(accuracy.get("interval")),
        NONE if NONE in seeds else ", ".join(seeds),
        f"{signed(paper['bd_rate_percent'], 1, '%')}, {signed(paper['bd_accuracy_points'])}"
        if paper
        else NONE,
    ]


def _short(results: Mapping[str, Any], name: str) -> str:
    against = results["against_anchor"].get(name)
    if against is None:
        return NONE
    rate, accuracy = against["bd_rate_percent"]["value"], against["bd_accuracy_points"]["value"]
    return f"{signed(rate, 1, '%')}, {signed(accuracy)}"


def _classifiers(results: Mapping[str, Any]) -> str:
    words = []
    for name in ("uncompressed", "joint-on-uncompressed", "edge-only"):
        if name in results["methods"]:
            rate = results["methods"][name]["rates"][0]
            words.append(f"{method(name).label} {percent(rate['accuracy'])}")
    met = [row["what"] for row in results["targets"] if row["met"]]
    known = [row for row in results["targets"] if row["met"] is not None]
    text = f"Targets met: {len(met)} of the {len(known)} that were measured."
    return f"Majority accuracy: {'; '.join(words)}. {text}" if words else text
