"""What `mien-train` makes of its arguments."""

import subprocess
import sys
from pathlib import Path

import pytest

from trainer.cli import PRESETS, _parser, _with_preset, main


@pytest.mark.parametrize("preset", ["released", "smoke"])
def test_every_preset_is_a_configuration(preset: str, tmp_path: Path) -> None:
    arguments = ["fit", "--preset", preset, "--data", str(tmp_path), "--out", str(tmp_path)]
    parser = _parser()
    options = parser.instantiate(parser.parse_args(_with_preset([*arguments, "--seed", "7"])))
    assert options.fit.seed == 7, "a flag after the preset overrides it"
    assert options.fit.base.optimizer == "adamw"


def test_a_preset_may_be_named_with_an_equals_sign(tmp_path: Path) -> None:
    typed = ["fit", "--preset=smoke", "--data", str(tmp_path)]
    assert _with_preset(typed) == _with_preset(["fit", "--preset", "smoke", *typed[2:]])
    with pytest.raises(ValueError, match="no preset 'nothing'"):
        _with_preset(["fit", "--preset=nothing"])


@pytest.mark.parametrize("preset", ["paper", "smoke", "two-cores"])
@pytest.mark.parametrize("command", ["pretrain", "joint", "study", "compare"])
def test_every_preset_of_the_study_is_a_configuration(
    preset: str, command: str, tmp_path: Path
) -> None:
    folders = ["--data", str(tmp_path), "--photos", str(tmp_path), "--out", str(tmp_path)]
    arguments = [command, "--preset", preset, *folders, "--joint.cross_entropy", "7"]
    parser = _parser()
    options = parser.instantiate(parser.parse_args(_with_preset(arguments)))[command]
    assert options.joint.cross_entropy == 7, "a flag after the preset overrides it"
    for stage in (options.finetune, options.joint):
        assert len(stage.lmbdas) == len(stage.start_gains) == options.codec.rates
    assert len(options.pretrain.lmbdas) == options.codec.rates


def test_no_preset_is_left_out_of_the_tests_above() -> None:
    names = {kind: {path.name for path in (PRESETS / kind).iterdir()} for kind in ("fit", "study")}
    assert names == {
        "fit": {"released.yaml", "smoke.yaml"},
        "study": {"paper.yaml", "smoke.yaml", "two-cores.yaml"},
    }


def test_an_unknown_preset_is_answered_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", "--preset", "best", "--data", "d", "--out", "o"]) == 2
    assert "there are ['released', 'smoke']" in capsys.readouterr().err


def test_a_study_without_compressai_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(command: str, options: object) -> None:
        raise ModuleNotFoundError("No module named 'compressai'", name="compressai")

    monkeypatch.setattr("trainer.cli.run_command", missing)
    folders = ["--data", str(tmp_path), "--photos", str(tmp_path), "--out", str(tmp_path)]
    assert main(["pretrain", "--preset", "smoke", *folders]) == 2
    assert "compressai is not installed" in capsys.readouterr().err


def test_measuring_a_bundle_needs_no_torch() -> None:
    script = "import sys, trainer.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
