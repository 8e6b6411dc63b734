"""Generate the Python stubs of every .proto file under proto/.

    python proto/generate.py [FOLDER]

FOLDER (default: the repository root) receives mien/v1/*_pb2*.py and *.pyi. The generators'
versions are pinned in the `dev` extra, for the stubs are checked in and compared byte for byte.
"""

import sys
import sysconfig
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
PLUGINS = ("mypy", "mypy_grpc")


def generate(target: Path) -> None:
    """Write the stubs under `target`. Raises RuntimeError with protoc's exit status."""
    target.mkdir(parents=True, exist_ok=True)
    outputs = ("python", "grpc_python", *PLUGINS)
    scripts = Path(sysconfig.get_path("scripts"))
    sources = sorted(path.relative_to(PROTO).as_posix() for path in PROTO.rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"-I{PROTO}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            *(f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}'}" for name in PLUGINS),
            *(f"--{name}_out={target}" for name in outputs),
            *sources,
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}: see its message above")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO.parent)
