"""JPEG, WebP, AVIF and JPEG XL on small faces, each in its most favourable setting.

The settings were chosen by measurement on 48×48 grey faces; docs/results says what they reach.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pillow_jxl  # noqa: F401  registers JPEG XL with Pillow
from numpy.typing import NDArray
from PIL import Image

from trainer.baselines.jpeg_file import without_application_segments

_MODES = {1: "L", 3: "RGB"}


class ImageCodecError(Exception):
    """A face cannot be coded, or bytes are not a file of this codec."""


def _as_written(data: bytes) -> bytes:
    return data


@dataclass(frozen=True)
class ImageCodec:
    """An image codec of Pillow's at fixed settings.

    name: as in the points' method. qualities: at least eight of the codec's own quality
    settings, lowest bitrate first; from its smallest file to about 900 bytes for 48×48 grey.
    file_format and settings: what Pillow's save is given. finish: makes the written file smaller.
    """

    name: str
    qualities: tuple[int, ...]
    file_format: str
    settings: Mapping[str, Any]
    finish: Callable[[bytes], bytes] = _as_written

    def encode(self, face: NDArray[np.uint8], quality: int) -> bytes:
        """A complete file of the face, uint8 (C, H, W) with C of 1 (grey) or 3 (RGB).

        Raises ImageCodecError for another shape or type.
        """
        file = io.BytesIO()
        _picture(face).save(file, self.file_format, quality=quality, **self.settings)
        return self.finish(file.getvalue())

    def decode(self, data: bytes, channels: int = 1) -> NDArray[np.uint8]:
        """The face in a file, uint8 (channels, H, W).

        channels: told, because WebP cannot say that a picture is grey.
        Raises ImageCodecError for bytes that this codec did not write.
        """
        try:
            with Image.open(io.BytesIO(data), formats=[self.file_format]) as picture:
                pixels = np.asarray(picture.convert(_MODES[channels]))
        # A damaged file is an OSError to most of Pillow's decoders, and other things to some.
        except (OSError, RuntimeError, SyntaxError, ValueError) as error:
            raise ImageCodecError(f"{len(data)} bytes are not a {self.name} file") from error
        return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))


def _picture(face: NDArray[np.uint8]) -> Image.Image:
    if face.ndim != 3 or len(face) not in _MODES or face.dtype != np.uint8:
        raise ImageCodecError(
            f"expected uint8 (1, H, W) or (3, H, W), got {face.dtype} {face.shape}"
        )
    return Image.fromarray(face[0] if len(face) == 1 else face.transpose(1, 2, 0))


JPEG = ImageCodec(
    "jpeg",
    (1, 5, 10, 16, 24, 34, 46, 60, 72),
    "JPEG",
    # Progressive files were larger at every quality: each scan brings tables of its own.
    {"optimize": True, "progressive": False, "subsampling": "4:2:0"},
    without_application_segments,
)
WEBP = ImageCodec(
    "webp",
    (0, 4, 10, 20, 32, 48, 64, 78, 86),
    "WEBP",
    {"method": 6},
)
AVIF = ImageCodec(
    "avif",
    (0, 6, 12, 20, 28, 36, 46, 56, 64),
    "AVIF",
    # Pillow writes a grey picture as monochrome. tune=psnr reaches smaller files than the
    # perceptual default, on the same curve; speed 0 gains 0.2 dB for six times the time.
    {"speed": 4, "max_threads": 1, "advanced": {"tune": "psnr"}},
)
JPEG_XL = ImageCodec(
    "jxl",
    (0, 8, 18, 30, 44, 58, 70, 80, 86),
    "JXL",
    # A bare codestream; Pillow's plug-in writes no boxes unless it is asked to.
    {"effort": 7, "num_threads": 1, "use_container": False},
)

IMAGE_CODECS: Mapping[str, ImageCodec] = {
    codec.name: codec for codec in (JPEG, WEBP, AVIF, JPEG_XL)
}
