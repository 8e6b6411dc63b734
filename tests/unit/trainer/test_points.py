"""Points on disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.compare.points import (
    Point,
    point_path,
    read_points,
    read_split_name,
    read_truth,
    write_point,
    write_truth,
)


def a_point(method: str = "joint", seed: int = 0, rate: int = 0, faces: int = 5) -> Point:
    random = np.random.default_rng(rate)
    return Point(
        method,
        seed,
        rate,
        random.integers(20, 90, faces).astype(np.int32),
        random.dirichlet(np.ones(8), faces).astype(np.float32),
        random.uniform(20, 30, faces).astype(np.float32),
        np.empty(0, np.float32),
    )


def test_points_come_back_as_they_were_written(tmp_path: Path) -> None:
    point = a_point()
    write_point(tmp_path, point)
    (again,) = read_points(tmp_path)
    assert (again.method, again.seed, again.rate) == ("joint", 0, 0)
    for name in ("sizes", "probabilities", "psnr_db", "ms_ssim"):
        old, new = getattr(point, name), getattr(again, name)
        assert old.dtype == new.dtype
        assert np.array_equal(old, new)


def test_points_are_sorted_by_method_seed_and_rate_as_numbers(tmp_path: Path) -> None:
    for method, seed, rate in [("joint", 0, 10), ("joint", 0, 9), ("avif", 2, 0), ("avif", 1, 3)]:
        write_point(tmp_path, a_point(method, seed, rate))
    order = [(point.method, point.seed, point.rate) for point in read_points(tmp_path)]
    assert order == [("avif", 1, 3), ("avif", 2, 0), ("joint", 0, 9), ("joint", 0, 10)]


def test_the_truth_is_not_read_as_a_point(tmp_path: Path) -> None:
    write_truth(tmp_path, np.array([3, 1, 2, 0, 7]), "valid")
    write_point(tmp_path, a_point())
    assert len(read_points(tmp_path)) == 1
    assert read_truth(tmp_path).tolist() == [3, 1, 2, 0, 7]
    assert read_split_name(tmp_path) == "valid"


def test_a_point_that_was_only_half_written_is_not_there(tmp_path: Path) -> None:
    path = point_path(tmp_path, "joint", 0, 0)
    path.parent.mkdir(parents=True)
    path.with_suffix(".part").write_bytes(b"PK")
    with pytest.raises(FileNotFoundError):
        read_points(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "Joint"),
        ("method", "joint.v2"),
        ("seed", -1),
        ("sizes", np.empty(0, np.int32)),
        ("probabilities", np.ones((4, 8), np.float32)),
        ("psnr_db", np.ones(4, np.float32)),
    ],
)
def test_a_point_whose_parts_disagree_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        replace(a_point(), **{field: value})
