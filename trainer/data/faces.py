"""A labelled set of faces in memory, and what was left out of it."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

EXPRESSIONS = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
)

# Folder and column names under which datasets publish the same expressions.
ALIASES = {
    "angry": "anger",
    "contemptuous": "contempt",
    "disgusted": "disgust",
    "fearful": "fear",
    "happy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
}

FACE_SIZE = 48


def canonical_expression(name: str) -> str:
    """The bundle's word for a dataset's label; unknown labels come back in lower case."""
    word = name.strip().lower()
    return ALIASES.get(word, word)


@dataclass(frozen=True)
class FaceSet:
    """Grey faces with label distributions.

    pixels: uint8 (N, 1, 48, 48).
    votes: float32 (N, 8), each row a distribution over EXPRESSIONS.
    left_out: how many faces of the source are missing here, by reason.
    """

    pixels: NDArray[np.uint8]
    votes: NDArray[np.float32]
    left_out: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def majority(self) -> NDArray[np.int64]:
        """int64 (N,): the most voted expression; the first of EXPRESSIONS in a tie."""
        return np.asarray(self.votes.argmax(axis=1))

    def select(self, keep: NDArray[np.bool_], reason: str) -> "FaceSet":
        """The faces where keep is true; the others are counted under reason."""
        left_out = self.left_out + Counter({reason: int((~keep).sum())})
        return replace(self, pixels=self.pixels[keep], votes=self.votes[keep], left_out=left_out)


def pixel_hashes(pixels: NDArray[np.uint8]) -> list[bytes]:
    """SHA-256 of each face's pixels, to find exact duplicates."""
    return [hashlib.sha256(np.ascontiguousarray(face).tobytes()).digest() for face in pixels]


def without_faces_of(faces: FaceSet, *others: FaceSet) -> FaceSet:
    """Drop the faces that also occur in another set.

    A face in two splits would let training see the answer; FER2013 has hundreds.
    """
    seen = {digest for other in others for digest in pixel_hashes(other.pixels)}
    keep = [digest not in seen for digest in pixel_hashes(faces.pixels)]
    return faces.select(np.array(keep, dtype=bool), "duplicate in another split")


def without_repeats(faces: FaceSet) -> FaceSet:
    """Drop the faces that occurred before in the same set."""
    digests = pixel_hashes(faces.pixels)
    first = {digest: index for index, digest in reversed(list(enumerate(digests)))}
    keep = [first[digest] == index for index, digest in enumerate(digests)]
    return faces.select(np.array(keep, dtype=bool), "duplicate")


def held_out_share(faces: FaceSet, share: float) -> tuple[FaceSet, FaceSet]:
    """Split by pixel hash: the others, and about this share. The same faces wherever it is done."""
    firsts = np.array([digest[0] for digest in pixel_hashes(faces.pixels)], dtype=np.int64)
    held_out = firsts < share * 256
    return faces.select(~held_out, "held out"), faces.select(held_out, "for training")
