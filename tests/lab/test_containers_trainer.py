"""The trainer's image, which is the one with torch: built, and run on drawn faces."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import MARKS, not_kept, said_of_itself
from tests.support.lab import Lab
from tests.support.podman import Podman
from tests.unit.trainer.datasets import write_fer

pytestmark = MARKS
IMAGE = "localhost/mien-trainer"
FACES = (96, 40)  # to learn from, to be measured by


@pytest.fixture(scope="module")
def image(store: Podman) -> Iterator[str]:
    with not_kept(store, "trainer.Dockerfile", IMAGE):
        yield IMAGE


def test_the_trainer_trains_without_root_and_without_a_gpu(
    podman: Podman, lab: Lab, image: str, tmp_path: Path
) -> None:
    assert said_of_itself(podman, image)[1:] == ["10001", "True"]
    assert "fit" in podman.run("run", "--rm", image)  # by itself it tells its commands

    data, runs = write_fer(tmp_path / "data", *FACES), tmp_path / "runs"
    runs.mkdir()
    runs.chmod(0o777)  # the page asks that user 10001 may write there
    tmp_path.chmod(0o755)
    # As the Dockerfile's own words have it, but for the GPU.
    podman.run(
        *("run", "--rm", "--read-only", "--tmpfs=/tmp", "--shm-size=2g"),
        *(f"--volume={data}:/data:ro", f"--volume={runs}:/runs", image),
        *("fit", "--preset", "smoke", "--data=/data", "--out=/runs/first", "--threads=1"),
    )
    log = (runs / "first" / "log.jsonl").read_text().splitlines()
    stages = {json.loads(line)["stage"] for line in log}
    assert stages == {"classifier", "base", "enhancement", "synthesis"}
    assert all((runs / "first" / f"{stage}.pt").is_file() for stage in stages)
    lab.entry.rows = [("MB", round(podman.size_mb(image))), ("stages", len(stages))]
