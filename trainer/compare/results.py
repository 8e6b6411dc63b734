"""From a folder of points to docs/results/results.json, which holds aggregates only."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.compare.against import against_anchor, differences
from trainer.compare.gathered import gather
from trainer.compare.measures import figures_of
from trainer.compare.methods import ANCHOR, in_order
from trainer.compare.points import read_points, read_split_name, read_truth
from trainer.compare.statistics import LEVEL, RESAMPLES, resampled_weights
from trainer.compare.targets import targets
from trainer.data.faces import EXPRESSIONS

RESULTS = "results.json"
# A folder of the same form inside a folder of points: faces on which nothing was chosen.
KEPT_BACK = "kept-back"
SHEET = "reconstructions.png"
CONVENTIONS = {
    "bytes": "real coded bytes of one face, headers included, averaged over faces",
    "accuracy": "share of faces whose most voted expression is named",
    "psnr": "mean over faces of each face's PSNR; an exact copy counts as 99 dB",
    "delta": "PCHIP over log bytes; BD-rate over accuracy on the Pareto fronts of both curves, "
    "BD-accuracy over log bytes on all rates; both over the overlap",
    "seeds": "curves are means over seeds; ranges are the lowest and highest seed",
}
_NUMBERS = re.compile(r"\[\s+([^][{}\"]+?)\s+\]")


def measure(folder: Path, out: Path, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Everything that is known of a folder of points, and write it to `out/results.json`.

    folder: `points/`; maybe `grid.json`, `runs.json` (see trainer.compare), `kept-back/points/`.
    Raises FileNotFoundError without points, ValueError for points of different faces.
    """
    runs = _read_list(folder / "runs.json")
    hours = training_hours(runs)
    kept_back = folder / KEPT_BACK
    results = {
        "format": 1,
        "conventions": CONVENTIONS,
        "interval_level": LEVEL,
        "resamples": resamples,
        "anchor": ANCHOR,
        "expressions": list(EXPRESSIONS),
        **_measured(folder, hours, resamples),
        "kept_back": _measured(kept_back, hours, resamples) if kept_back.is_dir() else None,
        "grid": _read_list(folder / "grid.json"),
        "runs": runs,
        "training_hours": hours,
        "sheet": SHEET if (out / SHEET).exists() else None,
    }
    write_results(out, results)
    return read_results(out)


def training_hours(runs: Sequence[Mapping[str, Any]]) -> float | None:
    """Hours of every stage of the pipeline once, each at its slowest seed; None without runs.

    Runs that are marked `"in_pipeline": false`, such as the grid's, do not count.
    """
    slowest: dict[str, float] = {}
    for run in runs:
        if run.get("in_pipeline", True):
            stage = str(run["stage"])
            slowest[stage] = max(slowest.get(stage, 0.0), float(run["wall_s"]))
    return sum(slowest.values()) / 3600 if slowest else None


def write_results(out: Path, results: Mapping[str, Any]) -> None:
    """Write results.json, floats to six significant digits, so that a diff can be read."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_rounded(results), indent=2, allow_nan=False)
    # A matrix in rows instead of one number a line.
    text = _NUMBERS.sub(lambda match: "[" + re.sub(r"\s+", " ", match[1]) + "]", text)
    (out / RESULTS).write_text(text + "\n")


def read_results(out: Path) -> dict[str, Any]:
    """What write_results wrote. Raises ValueError for another format."""
    results: dict[str, Any] = json.loads((out / RESULTS).read_text())
    if results.get("format") != 1:
        raise ValueError(f"{out / RESULTS} has format {results.get('format')}, expected 1")
    return results


def _measured(folder: Path, hours: float | None, resamples: int) -> dict[str, Any]:
    truth = read_truth(folder)
    gathered = gather(read_points(folder), truth)
    weights = resampled_weights(len(truth), resamples)
    names = in_order(gathered)
    methods = {name: figures_of(gathered[name], weights) for name in names}
    draws = {name: gathered[name].resampled(weights) for name in names}
    against = {
        name: against_anchor(gathered[name], gathered[ANCHOR], draws[name], draws[ANCHOR])
        for name in names
        if ANCHOR in gathered and name != ANCHOR
    }
    gaps = differences({name: gathered[name] for name in names}, weights)
    return {
        "split": read_split_name(folder),
        "faces": len(truth),
        "faces_of_expression": [int((truth == index).sum()) for index in range(len(EXPRESSIONS))],
        "targets": targets(methods, against, gaps, hours),
        "against_anchor": against,
        "cross_domain": _cross_domain(against, gaps),
        "differences": gaps,
        "methods": methods,
    }


def _cross_domain(against: Mapping[str, Any], gaps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The paper's claim that neither half of the joint pair is bound to the other."""
    on_uncompressed = [row for row in gaps if row["method"] == "joint-on-uncompressed"]
    return {
        "joint_classifier_on_uncompressed": on_uncompressed[0] if on_uncompressed else None,
        "original_classifier_on_joint": against.get("original-on-joint"),
    }


def _read_list(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return rows


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return value
