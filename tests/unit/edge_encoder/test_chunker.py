"""Which faces share a chunk."""

from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_encoder.chunker import Chunk, Chunker, FrameTime
from mien.bitstream import Box, EncodedFace, Limits
from mien.bundle import Bundle
from mien.range_coder import MAX_SYMBOL
from tests.support.tiny_bundle import make_tiny_bundle, tiny_symbols


def face(time_ms: int, track_id: int = 0) -> EncodedFace:
    return EncodedFace(time_ms, track_id, Box(10, 20, 48, 48), tiny_symbols(1, time_ms)[0])


def feed(chunker: Chunker, faces_by_frame: list[int], fps: float = 25.0) -> list[Chunk]:
    chunks: list[Chunk] = []
    for index, faces in enumerate(faces_by_frame):
        t_s = index / fps
        frame = FrameTime(index, t_s)
        chunks += chunker.add(frame, [face(round(t_s * 1000), track) for track in range(faces)])
    return chunks


def sizes(chunks: list[Chunk]) -> list[int]:
    return [len(chunk.frames) for chunk in chunks]


def test_a_chunk_is_done_when_it_is_full(bundle: Bundle) -> None:
    chunker = Chunker(bundle.codec(), 8, 60.0)
    assert sizes(feed(chunker, [1] * 20)) == [8, 8]
    assert sizes(chunker.flush()) == [4]
    assert chunker.flush() == []


def test_another_pace_holds_from_the_next_face_on_and_within_what_the_server_takes(
    bundle: Bundle,
) -> None:
    chunker = Chunker(bundle.codec(), 2, 60.0)
    feed(chunker, [1])
    chunker.pace(4, 60.0)
    assert sizes(feed(chunker, [1] * 3)) == [4]
    chunker.restrict(max_faces=3, max_bytes=10_000)
    chunker.pace(8, 60.0)
    assert sizes(feed(chunker, [1] * 6)) == [3, 3]
    chunker.pace(3, 0.04)
    assert sizes(feed(chunker, [1] * 3)) == [1, 1]


def test_what_waits_is_coded_with_the_bundle_it_was_analysed_with(
    bundle: Bundle, tmp_path: Path
) -> None:
    other = make_tiny_bundle(tmp_path / "other", table_width=3.0)
    chunker = Chunker(bundle.codec(), 8, 60.0)
    feed(chunker, [1] * 3)
    assert chunker.change(other) == [
        Chunk(bundle.codec().encode([face(40 * n) for n in range(3)]), tuple(times(0, 3)))
    ]
    feed(chunker, [1] * 2)
    (after,) = chunker.flush()
    assert other.codec().decode(after.payload) == (face(0), face(40))
    assert chunker.change(bundle) == []


def times(first: int, count: int) -> list[FrameTime]:
    return [FrameTime(index, index / 25) for index in range(first, first + count)]


def test_a_chunk_is_done_when_its_first_face_has_waited(bundle: Bundle) -> None:
    chunker = Chunker(bundle.codec(), 64, 0.5)
    # A face at 0 s, then nobody: 12 frames at 25 a second are 0.48 s, 13 are more than 0.5.
    assert sizes(feed(chunker, [1] + [0] * 12)) == []
    assert sizes(feed(chunker, [0] * 14)) == [1]


def test_many_faces_of_a_frame_are_spread_over_chunks(bundle: Bundle) -> None:
    assert sizes(feed(Chunker(bundle.codec(), 3, 60.0), [7])) == [3, 3]


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 10), st.floats(0, 2))
def test_every_face_is_in_one_chunk_in_its_order(
    bundle: Bundle, faces_by_frame: list[int], chunk_faces: int, chunk_seconds: float
) -> None:
    chunker = Chunker(bundle.codec(), chunk_faces, chunk_seconds)
    chunks = feed(chunker, faces_by_frame) + chunker.flush()
    sent = [
        (frame.index, decoded.track_id)
        for chunk in chunks
        for frame, decoded in zip(chunk.frames, bundle.codec().decode(chunk.payload), strict=True)
    ]
    assert sent == [(i, track) for i, faces in enumerate(faces_by_frame) for track in range(faces)]
    assert max(sizes(chunks), default=0) <= chunk_faces
    for chunk in chunks:
        for earlier, later in pairwise(chunk.frames):
            assert earlier.t_s <= later.t_s


def test_a_face_that_cannot_be_coded_does_not_cost_the_others(bundle: Bundle) -> None:
    chunker = Chunker(bundle.codec(), 4, 60.0)
    faces = [face(0, track) for track in range(4)]
    broken = np.full((4, 3, 3), MAX_SYMBOL + 1, np.int32)
    faces[2] = EncodedFace(0, 2, Box(0, 0, 48, 48), broken)
    chunks = chunker.add(FrameTime(0, 0.0), faces)
    decoded = [item.track_id for chunk in chunks for item in bundle.codec().decode(chunk.payload)]
    assert decoded == [0, 1, 3]
    assert chunker.dropped == {"symbol_range": 1}


def test_a_chunk_that_would_be_too_long_is_split(bundle: Bundle) -> None:
    whole = bundle.codec().encode([face(40 * index) for index in range(8)])
    limits = Limits(max_chunk_bytes=len(whole) - 1)
    chunker = Chunker(bundle.codec(limits), 8, 60.0)
    chunks = feed(chunker, [1] * 8)
    assert sizes(chunks) == [4, 4]
    assert chunker.dropped == {}


def test_a_server_s_limits_are_kept(bundle: Bundle) -> None:
    chunker = Chunker(bundle.codec(), 8, 60.0)
    chunker.restrict(max_faces=3, max_bytes=16384)
    assert sizes(feed(chunker, [1] * 6)) == [3, 3]
    whole = bundle.codec().encode([face(40 * index) for index in range(2)])
    chunker = Chunker(bundle.codec(), 2, 60.0)
    chunker.restrict(max_faces=64, max_bytes=len(whole) - 1)
    assert sizes(feed(chunker, [1] * 2)) == [1, 1]
    chunker.restrict(max_faces=64, max_bytes=10)
    assert feed(chunker, [1] * 2) == []
    assert chunker.dropped == {"limit_exceeded": 2}


def test_without_waiting_each_frame_is_a_chunk(bundle: Bundle) -> None:
    chunker = Chunker(bundle.codec(), 8, 0.0)
    assert sizes(feed(chunker, [2] * 5) + chunker.flush()) == [2] * 5
