"""A labelled set of faces, and what was left out of it."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from trainer.data.pictures import PictureFiles

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

# The shipped codec's faces, which are grey.
FACE_SIZE = 48
# A dataset of more decoded bytes than this stays in its files.
IN_MEMORY_BYTES = 2 << 30


def canonical_expression(name: str) -> str:
    """The bundle's word for a dataset's label; unknown labels come back in lower case."""
    word = name.strip().lower()
    return ALIASES.get(word, word)


@dataclass(frozen=True)
class FaceSet:
    """Faces with label distributions.

    pixels: uint8 (N, C, H, W); in a large set, files that are read when indexed. A slice of
        either is an array.
    votes: float32 (N, 8), each row a distribution over EXPRESSIONS.
    left_out: how many faces of the source are missing here, by reason.
    original: int64 (N,), the label of another task that came with the faces: FER2013's own, before
        anybody voted, an index into FER2013_LABELS; -1 where there is none. None without the file.
    """

    pixels: NDArray[np.uint8] | PictureFiles
    votes: NDArray[np.float32]
    left_out: Counter[str] = field(default_factory=Counter)
    original: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def majority(self) -> NDArray[np.int64]:
        """int64 (N,): the most voted expression; the first of EXPRESSIONS in a tie."""
        return np.asarray(self.votes.argmax(axis=1))

    def first(self, most: int) -> "FaceSet":
        """The first faces, no more than most."""
        original = None if self.original is None else self.original[:most]
        votes = self.votes[:most]
        return replace(self, pixels=self.pixels[:most], votes=votes, original=original)

    def select(self, keep: NDArray[np.bool_], reason: str) -> "FaceSet":
        """The faces where keep is true; the others are counted under reason."""
        left_out = self.left_out + Counter({reason: int((~keep).sum())})
        pixels = self.pixels
        kept = pixels.subset(keep) if isinstance(pixels, PictureFiles) else pixels[keep]
        original = None if self.original is None else self.original[keep]
        votes = self.votes[keep]
        return replace(self, pixels=kept, votes=votes, left_out=left_out, original=original)


def labelled(
    pixels: NDArray[np.uint8] | PictureFiles, labels: Sequence[int], left_out: Counter[str]
) -> FaceSet:
    """Faces with one certain label each, an index into EXPRESSIONS."""
    votes = np.eye(len(EXPRESSIONS), dtype=np.float32)[np.array(labels, dtype=np.int64)]
    return FaceSet(pixels, votes, left_out)


def in_memory(*sets: FaceSet) -> tuple[FaceSet, ...]:
    """The sets with their pictures read, or as they are when they are too large together."""
    if sum(faces.pixels.nbytes for faces in sets) > IN_MEMORY_BYTES:
        return sets
    return tuple(replace(faces, pixels=faces.pixels[:]) for faces in sets)


def digests(faces: FaceSet) -> list[bytes]:
    """SHA-256 of each face, to find duplicates: of its pixels, or of its file if it is unread."""
    if isinstance(faces.pixels, PictureFiles):
        return faces.pixels.digests()
    return [hashlib.sha256(np.ascontiguousarray(face).tobytes()).digest() for face in faces.pixels]


def without_faces_of(faces: FaceSet, *others: FaceSet) -> FaceSet:
    """Drop the faces that also occur in another set.

    A face in two splits would let training see the answer; FER2013 has hundreds.
    """
    seen = {digest for other in others for digest in digests(other)}
    keep = [digest not in seen for digest in digests(faces)]
    return faces.select(np.array(keep, dtype=bool), "duplicate in another split")


def without_repeats(faces: FaceSet) -> FaceSet:
    """Drop the faces that occurred before in the same set."""
    all_digests = digests(faces)
    first = {digest: index for index, digest in reversed(list(enumerate(all_digests)))}
    keep = [first[digest] == index for index, digest in enumerate(all_digests)]
    return faces.select(np.array(keep, dtype=bool), "duplicate")


def held_out_share(faces: FaceSet, share: float) -> tuple[FaceSet, FaceSet]:
    """Split by digest: the others, and about this share. The same faces wherever it is done."""
    firsts = np.array([digest[0] for digest in digests(faces)], dtype=np.int64)
    held_out = firsts < share * 256
    return faces.select(~held_out, "held out"), faces.select(held_out, "for training")
