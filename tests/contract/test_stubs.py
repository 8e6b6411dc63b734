"""The stubs that are checked in are those of the .proto files."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generated_stubs_equal_those_checked_in(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "proto" / "generate.py"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, text=True)

    made = {path.name: path.read_bytes() for path in (tmp_path / "mien" / "v1").iterdir()}
    kept = {
        path.name: path.read_bytes()
        for path in (ROOT / "mien" / "v1").iterdir()
        if path.suffix in {".py", ".pyi"} and path.name != "__init__.py"
    }
    assert len(made) == 8
    assert sorted(made) == sorted(kept)
    assert made == kept, "run `make proto` and commit what it writes"
