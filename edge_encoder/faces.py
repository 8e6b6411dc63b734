"""A picture to encoded faces: detect, follow, frame, analyse. No network and no queue here."""

from collections.abc import Sequence

from edge_encoder.alignment import FaceAligner
from edge_encoder.analysis import Analysis
from edge_encoder.detector.base import Detector, Image
from edge_encoder.steadying import AnalysedFace
from edge_encoder.tracker import FaceTracker, TrackedFace
from mien.bitstream import EncodedFace
from mien.bundle import Bundle
from mien.errors import ManifestError
from mien.tracing import Laps


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
    period_ms: a track's faces are encoded no more often; left_out: so
    many were not, so far. in_view: faces of the latest frame, those that were left out with them.
    looked_twice: faces that a first look left in doubt, so far.
    detect_every, max_faces: see FaceTracker. Raises ManifestError as FaceCoder does.
    """

    def __init__(
        self, detector: Detector, bundle: Bundle, *, detect_every: int = 5, max_faces: int = 8
    ) -> None:
        self.coder = FaceCoder(bundle)
        self._detector = detector
        self.tracker = FaceTracker(detector, detect_every, max_faces)
        self.period_ms = 0
        self.in_view = self.left_out = self.looked_twice = 0
        self._sent_ms: dict[int, int] = {}

    def encode(self, image: Image, time_ms: int, laps: Laps | None = None) -> list[EncodedFace]:
        """The faces of the source's next frame, uint8 (H, W, 3) BGR, with their track ids.

        time_ms: of the frame, since the epoch's start. laps: is told of each stage.
        """
        tracked = self.tracker.update(image)
        if laps is not None:
            laps.lap("detect")
        faces = self._encode(image, time_ms, self._due(tracked, time_ms))
        if laps is not None:
            laps.lap("analyse")
        return faces

    def _due(self, faces: Sequence[TrackedFace], time_ms: int) -> list[TrackedFace]:
        """The faces whose turn it is: of a track, one in period_ms."""
        self.in_view = len(faces)
        last = {face.track_id: self._sent_ms.get(face.track_id) for face in faces}
        due = [
            face
            for face in faces
            if (sent_ms := last[face.track_id]) is None or time_ms - sent_ms >= self.period_ms
        ]
        self.left_out += len(faces) - len(due)
        last.update(dict.fromkeys((face.track_id for face in due), time_ms))
        self._sent_ms = {track: sent_ms for track, sent_ms in last.items() if sent_ms is not None}
        return due

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
        analysis = self.coder.analysis
        y, again = analysis.latents(crops)
        self.looked_twice += again
        symbols = analysis.quantised(y)
        level = analysis.level
        return [
            AnalysedFace(
                time_ms,
                face.track_id,
                aligner.box(points),
                symbols[index],
                level,
                y[index],
                crops[index],
            )
            for index, (face, points) in enumerate(zip(faces, landmarks, strict=True))
        ]
