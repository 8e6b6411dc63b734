"""What is measured of one method at one rate, face by face, and how it is kept.

A folder of points holds `points/<method>.<seed>.<rate>.npz` and `points/truth.npz`. These are
figures of single faces of a dataset and stay out of git; `results.json` holds aggregates only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A method's id is part of a file's name, in which dots separate.
_METHOD = re.compile(r"[a-z0-9][a-z0-9-]*")
_FILE = re.compile(r"(?P<method>[a-z0-9][a-z0-9-]*)\.(?P<seed>\d+)\.(?P<rate>\d+)\.npz")
_TRUTH = "truth.npz"


@dataclass(frozen=True)
class Point:
    """One method at one rate on the held-out faces.

    method: e.g. "pretrained". seed: of the run that trained it. rate: index, 0 the lowest bitrate.
    sizes: int32 (N,), coded bytes of each face, headers included. probabilities: float32 (N, 8).
    psnr_db, ms_ssim: float32 (N,), or empty (0,) where nothing is reconstructed.
    Raises ValueError where shapes disagree or the method's id is no file's name.
    """

    method: str
    seed: int
    rate: int
    sizes: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    psnr_db: NDArray[np.float32]
    ms_ssim: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not _METHOD.fullmatch(self.method):
            raise ValueError(f"a method is lower-case letters, digits, hyphens: {self.method!r}")
        if self.seed < 0 or self.rate < 0:
            raise ValueError(f"seed and rate are at least 0: {self.seed}, {self.rate}")
        if self.sizes.ndim != 1 or not len(self.sizes):
            raise ValueError(f"sizes must be (N,), N at least 1: {self.sizes.shape}")
        if self.probabilities.ndim != 2 or len(self.probabilities) != len(self.sizes):
            raise ValueError(f"probabilities {self.probabilities.shape} of {len(self.sizes)} faces")
        for name, values in (("psnr_db", self.psnr_db), ("ms_ssim", self.ms_ssim)):
            if values.shape not in ((len(self.sizes),), (0,)):
                raise ValueError(f"{name} {values.shape} of {len(self.sizes)} faces")


def point_path(folder: Path, method: str, seed: int, rate: int) -> Path:
    """Where write_point puts a point: a run that goes on asks whether it is there."""
    return folder / "points" / f"{method}.{seed}.{rate}.npz"


def write_point(folder: Path, point: Point) -> None:
    """Write a point, replacing the same method's, seed's and rate's; whole or not at all."""
    arrays = {
        "sizes": point.sizes.astype(np.int32),
        "probabilities": point.probabilities.astype(np.float32),
        "psnr_db": point.psnr_db.astype(np.float32),
        "ms_ssim": point.ms_ssim.astype(np.float32),
    }
    _write(point_path(folder, point.method, point.seed, point.rate), arrays)


def read_points(folder: Path) -> list[Point]:
    """All points of a folder, sorted by method, seed and rate.

    Raises FileNotFoundError where there is none, ValueError for a file that is no point.
    """
    names = (_FILE.fullmatch(path.name) for path in (folder / "points").glob("*.npz"))
    points = [_read_point(folder, name) for name in names if name]
    if not points:
        raise FileNotFoundError(f"no point in {folder / 'points'}: measure a method first")
    return sorted(points, key=lambda point: (point.method, point.seed, point.rate))


def write_truth(folder: Path, majority: NDArray[np.int64], split: str = "") -> None:
    """Write what the faces show: majority int64 (N,), and the name of the split they are."""
    arrays = {"majority": majority.astype(np.int64), "split": np.array(split)}
    _write(folder / "points" / _TRUTH, arrays)


def read_truth(folder: Path) -> NDArray[np.int64]:
    """Majority labels int64 (N,), in the order of every point's faces."""
    with np.load(folder / "points" / _TRUTH, allow_pickle=False) as file:
        majority: NDArray[np.int64] = file["majority"]
    return majority


def read_split_name(folder: Path) -> str:
    """The name of the split that the faces are, "" where write_truth was not told."""
    with np.load(folder / "points" / _TRUTH, allow_pickle=False) as file:
        return str(file["split"]) if "split" in file.files else ""


def _read_point(folder: Path, name: re.Match[str]) -> Point:
    path = folder / "points" / name.string
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    if missing := {"sizes", "probabilities", "psnr_db", "ms_ssim"} - set(arrays):
        raise ValueError(f"{path} is no point: {sorted(missing)} missing")
    return Point(name["method"], int(name["seed"]), int(name["rate"]), **arrays)


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A run that is stopped here must not leave half a file, which would look measured.
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    part.replace(path)
