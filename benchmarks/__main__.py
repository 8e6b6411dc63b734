"""`python -m benchmarks NAME …`: each prints a table, and JSON with --json FILE."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    alignment,
    cloud,
    codec,
    edge,
    layer_paths,
    legibility,
    paths,
    streams,
    tracks,
    wire,
)

BENCHMARKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "alignment": alignment.run,
    "cloud": cloud.run,
    "codec": codec.run,
    "edge": edge.run,
    "legibility": legibility.run,
    "paths": lambda options: {**paths.run(options), **layer_paths.run(options)},
    "streams": streams.run,
    "tracks": tracks.run,
    "wire": wire.run,
}
NEED_BUNDLE = tuple(name for name in BENCHMARKS if name != "paths")
NEED_CLIP = ("tracks",)
NEED_DATA = ("alignment", "codec", "legibility")


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("benchmark", choices=sorted(BENCHMARKS))
    parser.add_argument("--bundle", type=Path, help="folder of the bundle")
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("MIEN_DATA"),
        help="a dataset that `mien-train evaluate` reads; MIEN_DATA by default",
    )
    parser.add_argument("--detector_model", type=Path, help="YuNet's file; MTCNN without it")
    parser.add_argument("--faces", type=int, help="use so many faces only")
    parser.add_argument("--clip", type=Path, help="a video with a face")
    parser.add_argument(
        "--level", type=int, help="alignment, codec, tracks: the quality level; else the bundle's"
    )
    parser.add_argument("--payloads", type=int, help="paths: compare them on so many")
    parser.add_argument("--streams", type=int, default=200, help="cloud: devices that send")
    parser.add_argument(
        "--quiet_streams", type=int, default=2000, help="streams: devices that see nobody"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="cloud, wire: of each load")
    parser.add_argument(
        "--soak_minutes",
        type=float,
        default=0.0,
        help="cloud: keep it saturated for so long and look at its memory instead",
    )
    parser.add_argument("--epochs", type=int, default=16, help="legibility: of its training")
    parser.add_argument("--width", type=int, default=16, help="legibility: of its ResNet-18")
    parser.add_argument("--out", type=Path, help="legibility: keep its checkpoint here")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if options.bundle is None and options.benchmark in NEED_BUNDLE:
        parser.error("--bundle must name the folder of a bundle")
    if options.data is None and options.benchmark in NEED_DATA:
        parser.error("--data, or MIEN_DATA in the environment, must name a dataset")
    if options.clip is None and options.benchmark in NEED_CLIP:
        parser.error("--clip must name a video with a face")
    figures = BENCHMARKS[options.benchmark](options)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(
            f"{name:<{width}}  {value:.4f}"
            if isinstance(value, float)
            else f"{name:<{width}}  {value}"
        )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
