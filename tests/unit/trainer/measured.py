"""Points of methods whose curves are known, for the tests of trainer.compare."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.compare.points import Point, write_point, write_truth

BYTES = (20, 35, 60, 100, 170, 290, 490, 830)
# How many times the bytes of the generic codec each method needs for the same accuracy.
COSTS = {
    "pretrained": 1.0,
    "finetuned": 0.45,
    "joint": 0.25,
    "adapted": 0.7,
    "original-on-joint": 0.8,
    "jpeg": 6.0,
    "jpeg-adapted": 4.0,
    "webp": 4.0,
    "webp-adapted": 3.0,
    "avif": 5.0,
    "jxl": 5.5,
}
CEILING = 0.84


def accuracy_at(size: float, cost: float) -> float:
    """What every made-up curve is: a share that nears CEILING with log bytes."""
    return float(CEILING - 0.5 * np.exp(-0.9 * np.log(size / cost / 6)))


def a_point(method: str, seed: int, rate: int, size: float, accuracy: float, faces: int) -> Point:
    """Faces have a difficulty of their own, the same for all, so that methods agree on most."""
    ease = np.random.default_rng(99).permutation(faces) / faces
    random = np.random.default_rng([seed, rate, len(method)])
    right = ease + random.normal(0, 0.12, faces) < accuracy
    truth = majority(faces)
    said = np.where(right, truth, (truth + 1 + random.integers(0, 7, faces)) % 8)
    sure = np.where(right, 0.9, 0.6) + random.uniform(-0.08, 0.08, faces)
    probabilities = np.repeat((1 - sure)[:, None] / 7, 8, axis=1)
    probabilities[np.arange(faces), said] = sure
    complexity = 0.6 + 0.8 * np.random.default_rng(98).random(faces)
    sizes = np.maximum(1, np.rint(size * complexity / complexity.mean())).astype(np.int32)
    psnr = (18 + 2.4 * np.log(sizes)).astype(np.float32)
    return Point(
        method,
        seed,
        rate,
        sizes,
        probabilities.astype(np.float32),
        psnr,
        (1 - 1 / (1 + sizes / 20)).astype(np.float32),
    )


def majority(faces: int) -> NDArray[np.int64]:
    """Labels, the first expressions much more often than the last."""
    shares = np.array([0.34, 0.25, 0.13, 0.12, 0.09, 0.02, 0.03, 0.02])
    return np.random.default_rng(97).choice(8, faces, p=shares)


def measured_folder(folder: Path, faces: int = 400, seeds: int = 2) -> Path:
    """A folder of points of all methods, with a grid and runs. Returns it."""
    write_truth(folder, majority(faces), "a made-up split")
    for seed in range(seeds):
        for method, cost in COSTS.items():
            floor = 8 if cost >= 3 else 1
            for rate, size in enumerate(BYTES):
                share = accuracy_at(size * floor, cost) + 0.004 * seed
                write_point(folder, a_point(method, seed, rate, size * floor, share, faces))
        write_point(folder, a_point("uncompressed", seed, 0, 1500, CEILING, faces))
        write_point(folder, a_point("joint-on-uncompressed", seed, 0, 1500, CEILING - 0.003, faces))
    one_byte = a_point("edge-only", 0, 0, 1, 0.72, faces)
    nothing = np.empty(0, np.float32)
    write_point(
        folder,
        Point(
            "edge-only", 0, 0, np.ones(faces, np.int32), one_byte.probabilities, nothing, nothing
        ),
    )
    (folder / "grid.json").write_text(json.dumps(a_grid()))
    (folder / "runs.json").write_text(json.dumps(some_runs()))
    return folder


def a_grid() -> list[dict[str, float]]:
    """Outcomes over cross-entropy and features at two weights of distortion."""
    return [
        {
            "cross_entropy": cross_entropy,
            "features": features,
            "distortion": distortion,
            "bytes": 40 + 10 * distortion,
            "accuracy": 0.7 + 0.03 * np.log1p(cross_entropy) + 0.01 * features,
            "psnr_db": 24 - cross_entropy + 2 * distortion,
        }
        for cross_entropy in (0.0, 0.5, 2.0)
        for features in (0.0, 1.0, 4.0)
        for distortion in (0.1, 1.0)
    ]


def some_runs() -> list[dict[str, object]]:
    """Wall times of stages, one of them no part of the pipeline."""
    return [
        {"stage": "pretrain", "seed": 0, "wall_s": 7200},
        {"stage": "joint", "seed": 0, "wall_s": 3600},
        {"stage": "joint", "seed": 1, "wall_s": 5400},
        {"stage": "grid", "seed": 0, "wall_s": 90000, "in_pipeline": False},
    ]
