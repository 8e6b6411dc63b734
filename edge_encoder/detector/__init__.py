"""Face detectors with five landmarks behind one interface.

A detector only says where faces are in one image; identity over time belongs to
`edge_encoder.tracker`, framing to `edge_encoder.alignment`.
"""

from pathlib import Path

from edge_encoder.detector.base import Detection, Detector
from edge_encoder.detector.model_file import YUNET_SHA256, mtcnn_files, verified

__all__ = ["Detection", "Detector", "open_detector"]


def open_detector(
    model: Path | None = None,
    sha256: str = YUNET_SHA256,
    *,
    min_face_px: int = 24,
    max_side_px: int = 640,
) -> Detector:
    """YuNet from the model file given, MTCNN from its wheel when none is.

    sha256: what the model file must have. Raises ConfigError when a file is missing or another.
    """
    if model is not None:
        from edge_encoder.detector.yunet import YunetDetector

        return YunetDetector(
            verified(model, sha256), min_face_px=min_face_px, max_side_px=max_side_px
        )
    from edge_encoder.detector.mtcnn import MtcnnDetector

    files = mtcnn_files()
    return MtcnnDetector(
        files["pnet.onnx"],
        files["rnet.onnx"],
        files["onet.onnx"],
        min_face_px=min_face_px,
        max_side_px=max_side_px,
    )
