import json
from pathlib import Path

import pytest

from tests.support.tiny_bundle import make_tiny_bundle
from trainer.cli import main
from trainer.compare.shipped import savings


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A bundle of two levels, and a study of three methods."""
    levels = [
        {"payload_bytes_per_face": 4.0, "accuracy": 0.7},
        {"payload_bytes_per_face": 10.0, "accuracy": 0.8},
    ]
    bundle = make_tiny_bundle(tmp_path / "bundle", figures={"levels": levels})

    def method(label: str, *rates: tuple[float, float]) -> dict[str, object]:
        return {"label": label, "rates": [{"bytes": b, "accuracy": a} for b, a in rates]}

    methods = {
        "a": method("worse", (40, 0.6), (80, 0.69)),
        "b": method("as good", (20, 0.7), (30, 0.65), (40, 0.8), (400, 0.9)),
        "c": method("better", (500, 0.95)),
    }
    (tmp_path / "results.json").write_text(json.dumps({"methods": methods}))
    return bundle.folder, tmp_path


def test_bytes_are_compared_at_the_accuracy_of_each_rate_that_is_reached(
    folders: tuple[Path, Path],
) -> None:
    worse, as_good, better = savings(*folders)
    assert worse.percent == pytest.approx(100 * ((0.1 * 0.05) ** 0.5 - 1))
    assert worse.rates == (2, 2)
    # 4 bytes for 20, 10 for 40; what is dearer and worse is no part of a front.
    assert as_good.percent == pytest.approx(100 * ((0.2 * 0.25) ** 0.5 - 1))
    assert as_good.rates == (2, 3)
    assert better.percent is None


def test_the_command_prints_a_line_for_each_method(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, results = folders
    assert main(["shipped", "--bundle", str(bundle), "--results", str(results)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[3].split()[-4:] == ["–", "0", "of", "1"]
