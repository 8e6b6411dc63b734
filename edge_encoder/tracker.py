"""Faces keep an id from frame to frame.

    every frame            each known face is refined where it was         (1 ms a face)
    every k-th frame, or   the whole frame is searched: new faces get the
    when a face was lost   next id, known ones are confirmed               (9 to 40 ms)
    at a cut               every track ends

Following by the detector's own landmark network, rather than by optical flow, cannot drift:
each frame is measured, with a score that says whether a face is still there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from edge_encoder.detector.base import Detection, Detector, Image, iou

# Boxes that share more are the same face, at the frame rates of cameras.
SAME_FACE_IOU = 0.3
# Two tracks that share so much of their boxes have converged on one face.
MERGED_IOU = 0.6
# Searches in a row that may miss a face which is still followed, before it counts as a mistake.
MAX_UNCONFIRMED = 3
# Frames a lost face is looked for at its old place before its id is given up.
MAX_LOST_FRAMES = 15
# Frames of one shot correlate at 0.8 to 1 as thumbnails, frames of different shots below 0.4.
CUT_CORRELATION = 0.6
THUMBNAIL_PX = 32


@dataclass(frozen=True)
class TrackedFace:
    """A face of one frame. Ids count from 0 and are never used again."""

    track_id: int
    detection: Detection


@dataclass
class _Track:
    track_id: int
    last: Detection
    seen: bool = True  # in the current frame
    lost_frames: int = 0
    unconfirmed: int = 0


@dataclass
class FaceTracker:
    """Follows the faces of one source.

    detect_every: frames from one search of the whole frame to the next; 1 searches every frame.
    max_faces: faces followed at once; the largest come first.
    """

    detector: Detector
    detect_every: int = 5
    max_faces: int = 8
    ignored: int = 0  # faces beyond max_faces so far
    searches: int = 0
    _tracks: list[_Track] = field(default_factory=list)
    _next_id: int = 0
    _frames_since_search: int | None = None
    _thumbnail: npt.NDArray[np.float32] | None = None

    def update(self, image: Image) -> list[TrackedFace]:
        """The faces of the next frame, uint8 (H, W, 3) BGR, in the order of their ids."""
        if self._is_cut(image):
            self._tracks.clear()
            self._frames_since_search = None
        newly_lost = self._follow(image)
        if self._search_is_due() or newly_lost:
            self._search(image)
        elif self._frames_since_search is not None:
            self._frames_since_search += 1
        self._tracks = [track for track in self._tracks if _is_alive(track)]
        return [TrackedFace(track.track_id, track.last) for track in self._tracks if track.seen]

    def forget(self) -> None:
        """The source was interrupted: whoever is seen next gets a new id."""
        self._tracks.clear()
        self._frames_since_search = None
        self._thumbnail = None

    def _is_cut(self, image: Image) -> bool:
        # Every pixel of a large frame would cost more than following its faces does.
        step = max(min(image.shape[:2]) // (4 * THUMBNAIL_PX), 1)
        sparse = np.ascontiguousarray(image[::step, ::step])
        small = cv2.resize(sparse, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)
        thumbnail = grey - grey.mean()
        before, self._thumbnail = self._thumbnail, thumbnail
        if before is None:
            return False
        energy = float(np.sum(before**2) * np.sum(thumbnail**2))
        # A frame of one grey, a closed lens, says nothing either way.
        return energy > 0 and float(np.sum(before * thumbnail)) < CUT_CORRELATION * energy**0.5

    def _follow(self, image: Image) -> bool:
        """Refine every track; True when a face that was seen before is not found."""
        newly_lost = False
        for track in self._tracks:
            found = self.detector.refine(image, track.last)
            if found is None:
                newly_lost |= track.seen
                track.lost_frames += 1
            else:
                track.last, track.lost_frames = found, 0
            track.seen = found is not None
        self._drop_merged()
        return newly_lost

    def _drop_merged(self) -> None:
        kept: list[_Track] = []
        for track in self._tracks:
            if all(iou(track.last.box, other.last.box) < MERGED_IOU for other in kept):
                kept.append(track)
        self._tracks = kept

    def _search_is_due(self) -> bool:
        since = self._frames_since_search
        return since is None or since + 1 >= self.detect_every

    def _search(self, image: Image) -> None:
        """Search the whole frame, match what is found with the tracks, start new ones."""
        self.searches += 1
        self._frames_since_search = 0
        found = sorted(self.detector.detect(image), key=lambda face: -face.box[2])
        matches = _match(self._tracks, found)
        for index, track in enumerate(self._tracks):
            if index not in matches:
                track.unconfirmed += 1
                continue
            track.unconfirmed = 0
            if not track.seen:
                self._see(track, image, found[matches[index]])
        matched = set(matches.values())
        for index, face in enumerate(found):
            if index not in matched:
                self._start(image, face)

    def _see(self, track: _Track, image: Image, face: Detection) -> None:
        track.last = self.detector.refine(image, face) or face
        track.seen, track.lost_frames = True, 0

    def _start(self, image: Image, face: Detection) -> None:
        if sum(track.seen for track in self._tracks) >= self.max_faces:
            self.ignored += 1
            return
        track = _Track(self._next_id, face)
        self._see(track, image, face)
        self._tracks.append(track)
        self._next_id += 1


def _is_alive(track: _Track) -> bool:
    return track.lost_frames <= MAX_LOST_FRAMES and track.unconfirmed <= MAX_UNCONFIRMED


def _match(tracks: Iterable[_Track], found: list[Detection]) -> dict[int, int]:
    """Position in `tracks` → position in `found`, greedily by the boxes' overlap."""
    overlaps = sorted(
        (
            (iou(track.last.box, face.box), t, f)
            for t, track in enumerate(tracks)
            for f, face in enumerate(found)
        ),
        reverse=True,
    )
    matches: dict[int, int] = {}
    for overlap, t, f in overlaps:
        if overlap >= SAME_FACE_IOU and t not in matches and f not in matches.values():
            matches[t] = f
    return matches
