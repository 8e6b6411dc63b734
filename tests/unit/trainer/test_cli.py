"""What `mien-train` makes of its arguments."""

from pathlib import Path

import pytest

from trainer.cli import PRESETS, _parser, _with_preset, main


@pytest.mark.parametrize("preset", ["released", "released-finish", "smoke"])
def test_every_preset_is_a_configuration(preset: str, tmp_path: Path) -> None:
    arguments = ["fit", "--preset", preset, "--data", str(tmp_path), "--out", str(tmp_path)]
    parser = _parser()
    options = parser.instantiate(parser.parse_args(_with_preset([*arguments, "--seed", "7"])))
    assert options.fit.seed == 7, "a flag after the preset overrides it"
    assert options.fit.joint.optimizer == "adamw"


def test_no_preset_is_left_out_of_the_test_above() -> None:
    names = {path.name for path in PRESETS.iterdir()}
    assert names == {"released.yaml", "released-finish.yaml", "smoke.yaml"}


def test_an_unknown_preset_is_answered_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", "--preset", "best", "--data", "d", "--out", "o"]) == 2
    assert "there are ['released', 'released-finish', 'smoke']" in capsys.readouterr().err
