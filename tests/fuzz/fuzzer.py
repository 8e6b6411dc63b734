"""Coverage-guided fuzzing of the targets, each in a process of its own.

corpus/TARGET      in git: seeds, and what a long run found that reaches further
build/fuzz/TARGET  grows with every run
build/fuzz/TARGET-crash-…  an input that breaks the promise of its harness
"""

import hashlib
import importlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TARGETS = ("payload", "layers", "bundle", "messages", "settings")
ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
FOUND = ROOT / "build" / "fuzz"
# One input of a few kilobytes; generous, for machines that are busy.
TIMEOUT_S = 120
MEMORY_MB = 2048


def fuzz(module: str, seconds: int, corpora: Sequence[Path], crashes: Path) -> tuple[bool, str]:
    """Fuzz a harness; returns whether nothing was found, and what libFuzzer has said.

    corpora: folders to begin from; the first one takes what reaches further. crashes: the beginning
    of the names of inputs that were found to break it.
    """
    corpora[0].mkdir(parents=True, exist_ok=True)
    crashes.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "tests.fuzz.one_target", module, f"-max_total_time={seconds}"),
        *(f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={crashes}-"),
        *("-print_final_stats=1", *map(str, corpora)),
    ]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode == 0, done.stdout


def keep(target: str) -> int:
    """Put what runs have found to reach further into the corpus in git; returns how many."""
    new = [
        path for path in (FOUND / target).iterdir() if not (CORPUS / target / path.name).exists()
    ]
    for path in new:
        shutil.copy(path, CORPUS / target)
    return len(new)


def write_seeds(target: str, folder: Path) -> None:
    """Put the seeds of a target into a folder, each under a name of its own bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in importlib.import_module(f"tests.fuzz.{target}").seeds():
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
