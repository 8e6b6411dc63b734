"""Two looks at the faces that one leaves in doubt."""

import numpy as np
from numpy.typing import NDArray

from mien.second_look import Analyse, Faces, Latents, looked_at

FACES = np.random.default_rng(3).integers(0, 256, (6, 1, 8, 8), np.uint8)


def left_and_right(faces: Faces) -> Latents:
    """(N, 2, 1, 1): the mean of each half, which a mirror swaps."""
    halves = faces.reshape(len(faces), 8, 2, 4).astype(np.float32).mean(axis=(1, 3))
    return halves[..., None, None]


def analysing(doubtful: list[bool], asked: list[int]) -> Analyse:
    def analyse(faces: Faces) -> tuple[Latents, NDArray[np.bool_] | None]:
        asked.append(len(faces))
        doubts = doubtful if len(faces) == len(doubtful) else [True] * len(faces)
        return left_and_right(faces), np.array(doubts)

    return analyse


def test_a_face_in_doubt_gets_the_mean_of_its_own_latent_and_its_mirror_image_s() -> None:
    asked: list[int] = []
    doubtful = [False, True, False, False, True, False]
    y, again = looked_at(analysing(doubtful, asked), FACES)
    once = left_and_right(FACES)
    np.testing.assert_array_equal(y[~np.array(doubtful)], once[~np.array(doubtful)])
    both = once[doubtful].mean(axis=1, keepdims=True)
    np.testing.assert_allclose(y[doubtful], np.broadcast_to(both, (2, 2, 1, 1)), rtol=1e-6)
    assert (again, asked) == (2, [6, 2]), "no third look, though the mirror image is doubtful too"


def test_without_doubt_there_is_one_look() -> None:
    asked: list[int] = []
    y, again = looked_at(analysing([False] * 6, asked), FACES)
    np.testing.assert_array_equal(y, left_and_right(FACES))
    assert (again, asked) == (0, [6])


def test_an_analysis_that_says_nothing_of_doubts_is_run_once() -> None:
    y, again = looked_at(lambda faces: (left_and_right(faces), None), FACES)
    np.testing.assert_array_equal(y, left_and_right(FACES))
    assert again == 0


def test_what_a_runtime_may_use_again_is_not_written_to() -> None:
    kept = left_and_right(FACES)
    kept.flags.writeable = False
    y, again = looked_at(lambda faces: (kept[: len(faces)], np.ones(len(faces), bool)), FACES)
    assert again == 6
    assert y is not kept
