import numpy as np
import pytest

from trainer.baselines.coding import code_at_random, code_faces
from trainer.baselines.image_codecs import JPEG, WEBP, ImageCodecError
from trainer.baselines.image_quality import ms_ssim_of, window_of
from trainer.schematic import schematic_faces

FACES = schematic_faces(24)


def test_faces_come_back_in_order_with_the_size_of_each_file() -> None:
    decoded, sizes = code_faces(JPEG, FACES, 30)

    assert decoded.dtype == np.uint8
    assert sizes.dtype == np.int32
    for face, seen, size in zip(FACES, decoded, sizes, strict=True):
        file = JPEG.encode(face, 30)
        assert size == len(file)
        np.testing.assert_array_equal(seen, JPEG.decode(file))


def test_two_processes_code_as_one_does() -> None:
    decoded, sizes = code_faces(WEBP, FACES, 8)
    decoded_by_two, sizes_by_two = code_faces(WEBP, FACES, 8, workers=2)

    np.testing.assert_array_equal(decoded, decoded_by_two)
    np.testing.assert_array_equal(sizes, sizes_by_two)
    np.testing.assert_array_equal(
        code_at_random(WEBP, FACES, seed=5), code_at_random(WEBP, FACES, seed=5, workers=2)
    )


def test_random_qualities_are_the_codecs_own_and_all_of_them_occur() -> None:
    face = np.repeat(FACES[:1], 200, axis=0)
    drawn = code_at_random(JPEG, face, seed=1)
    at_quality = [JPEG.decode(JPEG.encode(FACES[0], q)) for q in JPEG.qualities]
    matches = np.array([[np.array_equal(one, other) for other in at_quality] for one in drawn])

    assert (matches.sum(axis=1) == 1).all()
    assert (matches.sum(axis=0) > 200 / len(JPEG.qualities) / 2).all()


def test_a_seed_draws_the_same_qualities_and_another_seed_others() -> None:
    first = code_at_random(JPEG, FACES, seed=1)

    np.testing.assert_array_equal(first, code_at_random(JPEG, FACES, seed=1))
    assert not np.array_equal(first, code_at_random(JPEG, FACES, seed=2))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_empty_set_is_an_empty_set(workers: int) -> None:
    decoded, sizes = code_faces(JPEG, FACES[:0], 30, workers)

    assert decoded.shape == FACES[:0].shape
    assert sizes.shape == (0,)


def test_an_error_in_another_process_says_what_was_wrong() -> None:
    with pytest.raises(ImageCodecError, match="got float64"):
        code_faces(JPEG, FACES.astype(np.float64), 30, workers=2)


def test_ms_ssim_is_one_for_a_copy_and_falls_with_the_bitrate() -> None:
    similarity = [ms_ssim_of(FACES, code_faces(JPEG, FACES, q)[0]).mean() for q in JPEG.qualities]

    np.testing.assert_allclose(ms_ssim_of(FACES, FACES), 1, atol=1e-6)
    assert similarity == sorted(set(similarity))


def test_ms_ssim_of_a_face_does_not_depend_on_its_batch() -> None:
    faces = schematic_faces(260)
    noisy = np.clip(faces.astype(int) + np.arange(260).reshape(-1, 1, 1, 1) % 40, 0, 255)
    together = ms_ssim_of(faces, noisy.astype(np.uint8))

    assert together.dtype == np.float32
    for index in (0, 255, 256, 259):
        alone = ms_ssim_of(faces[index, None], noisy[index, None].astype(np.uint8))
        np.testing.assert_allclose(together[index], alone[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("side", "window"), [(33, 3), (48, 3), (64, 3), (65, 5), (160, 9), (161, 11), (224, 11)]
)
def test_the_window_is_the_largest_that_fits_five_scales(side: int, window: int) -> None:
    face = schematic_faces(1, side)

    assert window_of(side) == window
    assert ms_ssim_of(face, face)[0] == pytest.approx(1, abs=1e-5)


def test_a_face_too_small_for_five_scales_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 33 pixels"):
        ms_ssim_of(FACES[..., :32], FACES[..., :32])


def test_faces_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected two sets of one shape"):
        ms_ssim_of(FACES, FACES[:3])
