import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainer.baselines.containers import bare_avif, bare_webp, whole_avif, whole_webp
from trainer.baselines.image_codecs import (
    AVIF,
    IMAGE_CODECS,
    JPEG,
    JPEG_XL,
    WEBP,
    ImageCodec,
    ImageCodecError,
)
from trainer.baselines.jpeg_file import without_application_segments
from trainer.figures import psnr_db
from trainer.schematic import schematic_faces

FACES = schematic_faces(8)
EVERY_CODEC = pytest.mark.parametrize("codec", IMAGE_CODECS.values(), ids=IMAGE_CODECS)


def coloured(faces: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reddish faces, uint8 (N, 3, H, W)."""
    return np.concatenate([faces, faces // 4 * 3, faces // 2], axis=1)


def mean_bytes_and_psnr(codec: ImageCodec, quality: int) -> tuple[float, float]:
    files = [codec.encode(face, quality) for face in FACES]
    decoded = np.stack([codec.decode(file) for file in files])
    return float(np.mean([len(file) for file in files])), float(psnr_db(FACES, decoded).mean())


@EVERY_CODEC
def test_more_quality_is_more_bytes_and_less_error(codec: ImageCodec) -> None:
    sizes, psnr = zip(*(mean_bytes_and_psnr(codec, q) for q in codec.qualities), strict=True)

    assert len(codec.qualities) >= 8
    assert list(sizes) == sorted(set(sizes))
    assert list(psnr) == sorted(set(psnr))
    assert psnr[-1] > 30


@EVERY_CODEC
def test_the_ladder_begins_at_the_codecs_smallest_file(codec: ImageCodec) -> None:
    first, second = codec.qualities[:2]
    sizes = [
        np.mean([len(codec.encode(face, quality)) for face in FACES[:4]])
        for quality in (first, *range(second))
    ]

    assert min(sizes) == sizes[0]


@EVERY_CODEC
@pytest.mark.parametrize("shape", [(48, 48), (40, 56), (47, 33)])
def test_grey_and_colour_keep_their_shape_and_channel_order(
    codec: ImageCodec, shape: tuple[int, int]
) -> None:
    faces = schematic_faces(1, side=64)[:, :, : shape[0], : shape[1]]
    for face in (faces[0], coloured(faces)[0]):
        decoded = codec.decode(codec.encode(face, codec.qualities[-1]), len(face))

        assert decoded.dtype == np.uint8
        assert decoded.shape == face.shape
        # Channels in another order would be off by a quarter of the brightness or more.
        np.testing.assert_allclose(decoded.mean((1, 2)), face.mean((1, 2)), atol=3)


@EVERY_CODEC
def test_the_same_face_is_the_same_file(codec: ImageCodec) -> None:
    assert codec.encode(FACES[0], 30) == codec.encode(FACES[0].copy(), 30)


@EVERY_CODEC
def test_a_face_of_another_shape_or_type_is_refused(codec: ImageCodec) -> None:
    with pytest.raises(ImageCodecError, match=r"expected uint8 \(1, H, W\) or \(3, H, W\)"):
        codec.encode(FACES[:2, 0], 30)
    with pytest.raises(ImageCodecError, match="got float32"):
        codec.encode(FACES[0].astype(np.float32), 30)


@EVERY_CODEC
def test_bytes_of_another_codec_or_cut_short_are_refused(codec: ImageCodec) -> None:
    file = codec.encode(FACES[0], 30)
    others = [other for other in IMAGE_CODECS.values() if other is not codec]
    for data in (b"", file[:40], *(other.encode(FACES[0], 30) for other in others)):
        with pytest.raises(ImageCodecError, match=f"not a {codec.name} file"):
            codec.decode(data)


@EVERY_CODEC
@pytest.mark.parametrize("quality", [-1, 101])
def test_a_quality_out_of_range_is_refused(codec: ImageCodec, quality: int) -> None:
    with pytest.raises(ImageCodecError, match=f"expected 0 to 100, got {quality}"):
        codec.encode(FACES[0], quality)


@pytest.mark.parametrize("faces", [FACES[:3], coloured(FACES[:3])], ids=["grey", "colour"])
def test_a_stripped_jpeg_decodes_as_before_in_both_libraries(faces: NDArray[np.uint8]) -> None:
    for face in faces:
        written = io.BytesIO()
        picture = Image.fromarray(face.transpose(1, 2, 0).squeeze())
        picture.save(written, "JPEG", quality=30, optimize=True, subsampling="4:2:0")
        stripped = JPEG.encode(face, 30)
        whole_read, stripped_read = (
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            for data in (written.getvalue(), stripped)
        )

        assert len(stripped) == len(written.getvalue()) - 18
        assert b"JFIF" not in stripped
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(stripped))), np.asarray(Image.open(written))
        )
        np.testing.assert_array_equal(stripped_read, whole_read)


def test_stripping_takes_comments_and_metadata_and_nothing_else() -> None:
    stripped = JPEG.encode(FACES[0], 30)
    segments = b"\xff\xe1\x00\x08Exif\0\0" + b"\xff\xfe\x00\x07mien!"
    with_metadata = stripped[:2] + segments + stripped[2:]

    assert without_application_segments(with_metadata) == stripped


@pytest.mark.parametrize("length", [0, 1, 2, 3, 10, 60])
def test_a_jpeg_cut_before_its_scan_cannot_be_stripped(length: int) -> None:
    with pytest.raises(ValueError, match="expected a JPEG"):
        without_application_segments(JPEG.encode(FACES[0], 30)[:length])


def test_progressive_jpeg_would_be_larger_at_every_quality() -> None:
    for quality in JPEG.qualities:
        written = io.BytesIO()
        Image.fromarray(FACES[0, 0]).save(written, "JPEG", quality=quality, progressive=True)

        assert len(JPEG.encode(FACES[0], quality)) < len(
            without_application_segments(written.getvalue())
        )


def test_webp_is_smaller_than_with_the_librarys_defaults() -> None:
    for quality in WEBP.qualities:
        written = io.BytesIO()
        Image.fromarray(FACES[0, 0]).save(written, "WEBP", quality=quality, method=6)

        assert len(WEBP.encode(FACES[0], quality)) < len(written.getvalue())


def test_grey_avif_has_no_chroma_and_jpeg_xl_no_container() -> None:
    profile_and_depth = AVIF.encode(FACES[0], 30).split(b"av1C")[1][2]

    assert profile_and_depth & 0x10  # monochrome, in the AV1 codec configuration box
    assert JPEG_XL.encode(FACES[0], 30).startswith(b"\xff\x0a")


@pytest.mark.parametrize("faces", [FACES[:3], coloured(FACES[:3])], ids=["grey", "colour"])
def test_a_bare_picture_and_its_size_give_the_whole_file_back(faces: NDArray[np.uint8]) -> None:
    template = AVIF.encode(np.zeros_like(faces[0]), 0)
    for face in faces:
        for quality in AVIF.qualities:
            avif = AVIF.encode(face, quality)
            assert whole_avif(bare_avif(avif), template) == avif
        for quality in WEBP.qualities:
            webp = WEBP.encode(face, quality)
            assert whole_webp(bare_webp(webp)) == webp


def test_container_bytes_are_what_is_not_picture() -> None:
    assert AVIF.container_bytes(AVIF.encode(FACES[0], 30)) == 269
    assert WEBP.container_bytes(WEBP.encode(FACES[0], 30)) in (20, 21)
    assert JPEG.container_bytes(JPEG.encode(FACES[0], 30)) == 0


@pytest.mark.parametrize("bare", [bare_avif, bare_webp])
def test_a_container_that_is_cut_short_is_refused(bare: Callable[[bytes], bytes]) -> None:
    file = (AVIF if bare is bare_avif else WEBP).encode(FACES[0], 0)
    for length in (0, 7, 19, 30, len(file) - 2):
        with pytest.raises(ValueError, match="expected a"):
            bare(file[:length])
