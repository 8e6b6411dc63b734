"""docs/results/README.md from results.json: every figure in it comes from there."""

from collections.abc import Mapping
from typing import Any

from trainer.compare.methods import ANCHOR, EDGE_ONLY, method
from trainer.compare.report_tables import (
    budget_table,
    class_table,
    delta_table,
    grid_table,
    kept_back_table,
    rate_table,
    run_table,
    same_codec_table,
    target_table,
)
from trainer.compare.words import number, percent, probability, signed, span

_TARGETS = {
    "finetuned: bd_rate_percent": "codec fine-tuned alone, BD-rate",
    "finetuned: bd_accuracy_points": "codec fine-tuned alone, BD-accuracy",
    "joint: bd_rate_percent": "codec and classifier jointly, BD-rate",
    "joint: bd_accuracy_points": "codec and classifier jointly, BD-accuracy",
    "uncompressed: accuracy": "pixel classifier on uncompressed faces",
    "joint-on-uncompressed: points": "joint classifier on uncompressed faces, points of difference",
    "training: hours": "hours of training, every stage once",
}


def report(results: Mapping[str, Any], notes: str = "") -> str:
    """Markdown. notes: what a person has to say of the figures, kept in notes.md beside them."""
    sections = [
        ("", _opening(results)),
        ("What was to be reached", _targets(results)),
        ("What to make of it", notes.strip()),
        ("Accuracy for bytes", _rate_accuracy(results)),
        ("One byte instead", _edge_only(results)),
        ("Codec and classifier apart", _cross_domain(results)),
        ("Pictures for bytes", _pictures(results)),
        ("Where only the classifier differs", _same_codec(results)),
        ("Calibration and expressions", _classes(results)),
        ("What each loss term does", _grid(results)),
        ("Again, on faces kept back", _kept_back(results)),
        ("What training took", run_table(results)),
        ("Every rate", rate_table(results)),
        ("How the figures are made", _conventions(results)),
    ]
    parts = [f"## {title}\n\n{text}" if title else text for title, text in sections if text]
    return "\n\n".join(parts) + "\n"


def _opening(results: Mapping[str, Any]) -> str:
    seeds = sorted({len(figures["seeds"]) for figures in results["methods"].values()})
    counts = " to ".join(dict.fromkeys([str(seeds[0]), str(seeds[-1])]))
    return f"""# Results

{number(results["faces"], 0)} faces of {results["split"] or "the held-out split"}, \
{len(results["methods"])} methods of {counts} seeds. Everything on this page is drawn from \
[results.json](results.json) by `mien-train report`; do not edit it. Intervals are \
{percent(results["interval_level"], 0)} intervals of a paired bootstrap over faces \
({number(results["resamples"], 0)} resamples): they say what other faces could change, and the \
range of the seeds what another training run could."""


def _targets(results: Mapping[str, Any]) -> str:
    rows = results["targets"]
    missed = [row for row in rows if row["met"] is False]
    unsure = [row for row in rows if row["met"] and row.get("met_by_whole_interval") is False]
    unknown = [row for row in rows if row["met"] is None]
    words = [
        f"{verdict}: {'; '.join(map(_name, some))}."
        for verdict, some in [
            ("**Missed**", missed),
            ("Met, but not by the whole interval", unsure),
            ("Without a figure", unknown),
        ]
        if some
    ]
    if any("reason" in row for row in unknown):
        words.append(
            "A curve that is above the other everywhere has no BD-rate; the bytes for the anchor's "
            "best accuracy, below, say what it saves at least."
        )
    verdict = " ".join(words or ["All were met, by the whole of their intervals."])
    return f"{target_table(results, _TARGETS)}\n\n{verdict}"


def _name(row: Mapping[str, Any]) -> str:
    reason = f" ({row['reason']})" if "reason" in row else ""
    return _TARGETS[row["what"]] + reason


def _rate_accuracy(results: Mapping[str, Any]) -> str:
    return f"""![Accuracy over the coded bytes of a face, one curve a method](rate-accuracy.svg)

All differences are against the {method(ANCHOR).label} with the classifier as it was trained on \
uncompressed faces. BD-rate: bytes for equal accuracy; BD-accuracy: points for equal bytes; both \
averaged over what the two curves have in common, which the last columns state. Bands and ranges \
are those of the seeds.

{delta_table(results)}

Accuracy at a budget, between the measured rates by PCHIP; none is given outside of them:

{budget_table(results)}"""


def _edge_only(results: Mapping[str, Any]) -> str:
    if EDGE_ONLY not in results["methods"]:
        return ""
    rate = results["methods"][EDGE_ONLY]["rates"][0]
    return f"""A classifier of the encoder's cost on the device, which sends its answer in \
{number(rate["bytes"], 0)} byte, names {percent(rate["accuracy"])} rightly (macro-F1 \
{rate["macro_f1"]:.3f}). On rate alone nothing beats it. What it cannot do: be read by a better \
classifier tomorrow, serve another task, give a second look or a picture."""


def _cross_domain(results: Mapping[str, Any]) -> str:
    cross = results["cross_domain"]
    words = []
    if row := cross["joint_classifier_on_uncompressed"]:
        words.append(
            f"The joint classifier on uncompressed faces, against the one that was trained on "
            f"them: {signed(row['points'])} points ({span(row['interval'])}; McNemar's p, "
            f"a seed each: {', '.join(probability(test['p']) for test in row['mcnemar'])})."
        )
    if deltas := cross["original_classifier_on_joint"]:
        rate, accuracy = deltas["bd_rate_percent"], deltas["bd_accuracy_points"]
        words.append(
            f"The original classifier, which never saw a coded face, on jointly coded ones, "
            f"against itself on those of the {method(ANCHOR).label}: BD-accuracy "
            f"{signed(accuracy['value'])} points ({span(accuracy.get('interval'))}), BD-rate "
            f"{signed(rate['value'], 1, '%')} ({span(rate.get('interval'), 1, '%')}). A codec that "
            "smuggled the label to its own classifier would gain nothing here."
        )
    return " ".join(words)


def _pictures(results: Mapping[str, Any]) -> str:
    parts = [
        "![PSNR over the coded bytes of a face](rate-psnr.svg)",
        "![MS-SSIM over the coded bytes of a face](rate-ms-ssim.svg)",
    ]
    if sheet := results["sheet"]:
        parts.append(f"![Drawn faces after each codec, with their bytes]({sheet})")
    return "\n\n".join(parts)


def _same_codec(results: Mapping[str, Any]) -> str:
    rows = same_codec_table(results)
    return (
        rows
        and f"""Points that a classifier gains by having been trained on the coded faces: \
the same codec, the same bytes. Bold where the interval leaves 0 out; intervals and McNemar's test \
of every seed are in results.json.

{rows}"""
    )


def _classes(results: Mapping[str, Any]) -> str:
    return f"""![Calibration error over bytes, and a reliability diagram](calibration.svg)

![Confusion matrices, uncompressed beside joint](confusion.svg)

![F1 of every expression](per-class.svg)

Each method at its most accurate rate, F1 of every expression:

{class_table(results)}"""


def _grid(results: Mapping[str, Any]) -> str:
    if not results["grid"]:
        return ""
    return f"""![Accuracy, bytes and PSNR over the weights of the loss](loss-weights.svg)

{grid_table(results)}"""


def _kept_back(results: Mapping[str, Any]) -> str:
    if not results["kept_back"]:
        return ""
    again = results["kept_back"]
    return f"""{number(again["faces"], 0)} faces of {again["split"] or "another split"}, by which \
nothing was chosen.

{kept_back_table(results, _TARGETS)}"""


def _conventions(results: Mapping[str, Any]) -> str:
    rows = results["conventions"].items()
    return "\n".join(f"- **{name}**: {text}." for name, text in rows)
