"""Sets of faces through an image codec: what a classifier gets to see, and at how many bytes."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from trainer.baselines.image_codecs import ImageCodec

_Coded = tuple[NDArray[np.uint8], NDArray[np.int32]]


def code_faces(
    codec: ImageCodec, pixels: NDArray[np.uint8], quality: int, workers: int = 1
) -> _Coded:
    """Encode and decode every face at one quality.

    pixels: uint8 (N, C, H, W). workers: processes that share the faces; the result is the same
    for any number. Returns the decoded faces, uint8 (N, C, H, W), and the bytes of each one's
    file, int32 (N,), headers included. Raises ImageCodecError for another shape or type.
    """
    return code_each(codec, pixels, [quality] * len(pixels), workers)


def code_at_random(
    codec: ImageCodec, pixels: NDArray[np.uint8], seed: int, workers: int = 1
) -> NDArray[np.uint8]:
    """Every face at a quality drawn from the codec's, for a classifier to be fine-tuned on.

    One classifier then serves every bitrate, as one variable-rate codec does.
    Returns uint8 (N, C, H, W); the same faces for the same arguments.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    drawn = random.choice(codec.qualities, len(pixels))
    return code_each(codec, pixels, drawn.tolist(), workers)[0]


def code_each(
    codec: ImageCodec, pixels: NDArray[np.uint8], qualities: list[int], workers: int = 1
) -> _Coded:
    """Encode and decode every face at a quality of its own; see code_faces."""
    if workers <= 1 or len(pixels) < 2:
        return _code(codec, pixels, qualities)
    # More parts than processes, because low bitrates take less time. Spawned, because a fork
    # of a process that runs torch can hang.
    parts = np.array_split(np.arange(len(pixels)), 8 * workers)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        coded = pool.map(
            _code,
            [codec] * len(parts),
            [pixels[part] for part in parts],
            [[qualities[face] for face in part] for part in parts],
        )
        decoded, sizes = zip(*coded, strict=True)
    return np.concatenate(decoded), np.concatenate(sizes)


def _code(codec: ImageCodec, pixels: NDArray[np.uint8], qualities: list[int]) -> _Coded:
    decoded, sizes = np.empty_like(pixels), np.empty(len(pixels), np.int32)
    for index, (face, quality) in enumerate(zip(pixels, qualities, strict=True)):
        data = codec.encode(face, quality)
        decoded[index] = codec.decode(data, len(face))
        sizes[index] = len(data)
    return decoded, sizes
