"""docs/results, whole: from points, or from its own results.json."""

from pathlib import Path

from trainer.compare.detail_plots import draw_all
from trainer.compare.report import report
from trainer.compare.results import measure, read_results
from trainer.compare.statistics import RESAMPLES

REPORT = "README.md"
NOTES = "notes.md"


def make_results(folder: Path, out: Path, resamples: int = RESAMPLES) -> list[Path]:
    """Measure a folder of points, write `out/results.json`, and render it. The paths written.

    folder: `points/`, and as far as there are any
    - `kept-back/points/`, the same methods on faces by which nothing was chosen;
    - `grid.json`, a list of runs over loss weights: cross_entropy, features, distortion, and what
      came of them: bytes, accuracy (a share), psnr_db, bd_rate_percent, bd_accuracy_points;
    - `runs.json`, a list of trainings: stage, seed, wall_s, and `"in_pipeline": false` for those
      that the pipeline does not need.
    Raises FileNotFoundError without points, ValueError for points of different faces.
    """
    measure(folder, out, resamples)
    return render(out)


def render(out: Path) -> list[Path]:
    """Write the plots and README.md of out from its results.json alone. The paths written."""
    (out / REPORT).write_text(report_of(out))
    return [out / REPORT, *draw_all(out, read_results(out))]


def report_of(out: Path) -> str:
    """What README.md must say: results.json in words, with notes.md where a person wrote one."""
    notes = out / NOTES
    return report(read_results(out), notes.read_text() if notes.exists() else "")
