"""A picture to encoded faces: detect, follow, frame, analyse. No network and no queue here."""

from collections.abc import Sequence

from edge_encoder.alignment import FaceAligner
from edge_encoder.analysis import Analysis
from edge_encoder.detector.base import Detector, Image
from edge_encoder.tracker import FaceTracker, TrackedFace
from mien.bitstream import EncodedFace
from mien.bundle import Bundle
from mien.errors import ManifestError


class FaceCoder:
    """What of an encoder depends on the bundle: how a face is framed and analysed.

    Raises ManifestError for a bundle that this device cannot encode for.
    """

    def __init__(self, bundle: Bundle) -> None:
        try:
            self.aligner = FaceAligner(bundle.manifest.image)
        except ValueError as error:
            raise ManifestError(f"bundle {bundle.bundle_id[:12]}: {error}") from error
        self.analysis = Analysis(bundle)


class FaceEncoder:
    """The encoder of one source, and of a bundle at a time.

    coder: another bundle's may take its place between two frames; tracks go on.
    detect_every, max_faces: see FaceTracker. Raises ManifestError as FaceCoder does.
    """

    def __init__(
        self, detector: Detector, bundle: Bundle, *, detect_every: int = 5, max_faces: int = 8
    ) -> None:
        self.coder = FaceCoder(bundle)
        self._detector = detector
        self.tracker = FaceTracker(detector, detect_every, max_faces)

    def encode(self, image: Image, time_ms: int) -> list[EncodedFace]:
        """The faces of the source's next frame, uint8 (H, W, 3) BGR, with their track ids.

        time_ms: of the frame, since the epoch's start.
        """
        return self._encode(image, time_ms, self.tracker.update(image))

    def encode_still(self, image: Image) -> list[EncodedFace]:
        """The faces of a photograph that stands for itself: time 0, ids from 0, largest first."""
        found = sorted(self._detector.detect(image), key=lambda face: -face.box[2])
        faces = [
            TrackedFace(index, self._detector.refine(image, face) or face)
            for index, face in enumerate(found)
        ]
        return self._encode(image, 0, faces)

    def _encode(
        self, image: Image, time_ms: int, faces: Sequence[TrackedFace]
    ) -> list[EncodedFace]:
        landmarks = [face.detection.landmarks for face in faces]
        aligner = self.coder.aligner
        crops = [aligner.crop(image, points) for points in landmarks]
        symbols = self.coder.analysis.symbols(crops)
        return [
            EncodedFace(time_ms, face.track_id, aligner.box(points), symbols[index])
            for index, (face, points) in enumerate(zip(faces, landmarks, strict=True))
        ]
