"""JPEG, WebP, AVIF and JPEG XL on small faces, each in its most favourable setting.

The settings were chosen by bytes and PSNR over 48×48 grey faces; each comment says what was gained.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import webp
from numpy.typing import NDArray
from PIL import Image
from pillow_jxl import JpegXLImagePlugin

from trainer.baselines.containers import bare_avif, bare_webp
from trainer.baselines.jpeg_file import without_application_segments

# The plug-in would start as many threads as there are processors for each small face.
JpegXLImagePlugin.DECODE_THREADS = 0

_MODES = {1: "L", 3: "RGB"}


class ImageCodecError(Exception):
    """A face cannot be coded, or bytes are not a file of this codec."""


def _everything(data: bytes) -> bytes:
    return data


@dataclass(frozen=True)
class ImageCodec:
    """An image codec that anybody can install, at fixed settings.

    name: as in a point's method. qualities: eight of the codec's own quality settings, lowest
    bitrate first: from its smallest file to about 900 bytes for 48×48 grey.
    file_format: Pillow's name of it. write: a picture and a quality to a whole file.
    bare: a whole file to what is left without its container.
    """

    name: str
    qualities: tuple[int, ...]
    file_format: str
    write: Callable[[Image.Image, int], bytes]
    bare: Callable[[bytes], bytes] = _everything

    def encode(self, face: NDArray[np.uint8], quality: int) -> bytes:
        """A whole file of the face, uint8 (C, H, W) with C of 1 (grey) or 3 (RGB).

        Raises ImageCodecError for another shape or type, or a quality beyond 0 to 100.
        """
        if not 0 <= quality <= 100:
            raise ImageCodecError(f"quality: expected 0 to 100, got {quality}")
        if face.ndim != 3 or len(face) not in _MODES or face.dtype != np.uint8:
            raise ImageCodecError(
                f"expected uint8 (1, H, W) or (3, H, W), got {face.dtype} {face.shape}"
            )
        picture = Image.fromarray(face[0] if len(face) == 1 else face.transpose(1, 2, 0))
        return self.write(picture, quality)

    def decode(self, data: bytes, channels: int = 1) -> NDArray[np.uint8]:
        """The face in a file, uint8 (channels, H, W).

        channels: told, because WebP cannot say that a picture is grey.
        Raises ImageCodecError for bytes that are not a file of this codec.
        """
        try:
            with Image.open(io.BytesIO(data), formats=[self.file_format]) as picture:
                pixels = np.asarray(picture.convert(_MODES[channels]))
        # A damaged file is an OSError to most of Pillow's decoders, and other things to some.
        except (OSError, RuntimeError, SyntaxError, ValueError) as error:
            raise ImageCodecError(f"{len(data)} bytes are not a {self.name} file") from error
        return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))

    def container_bytes(self, data: bytes) -> int:
        """How many of a file's bytes are its container's."""
        return len(data) - len(self.bare(data))


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    # Progressive files are 125 bytes larger: every scan brings tables of its own. Without JFIF's
    # segment 18 bytes less.
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, optimize=True, subsampling="4:2:0")
    return without_application_segments(file.getvalue())


def _webp(picture: Image.Image, quality: int) -> bytes:
    # One segment, no spatial noise shaping: 13 to 20 bytes less than the defaults at the same
    # quality and no less PSNR. The package's class has no property for either, and Pillow does not
    # offer them.
    config = webp.WebPConfig.new(quality=quality, method=6)
    config.ptr.segments, config.ptr.sns_strength = 1, 0
    return bytes(webp.WebPPicture.from_pil(picture.convert("RGB")).encode(config).buffer())


def _avif(picture: Image.Image, quality: int) -> bytes:
    # A grey picture is written as 4:0:0. tune=psnr reaches files 17 bytes smaller than the
    # perceptual default, on the same curve. Speed 3 is 0.2 to 0.9 dB better than the default 6 at
    # the same bytes, for five times the time; 0 is another 0.1 to 0.4 dB, for four times that.
    file = io.BytesIO()
    picture.save(file, "AVIF", quality=quality, speed=3, max_threads=1, advanced={"tune": "psnr"})
    return file.getvalue()


def _jpeg_xl(picture: Image.Image, quality: int) -> bytes:
    # A bare codestream. Effort 9 reaches 150 bytes where 7 stops at 176; otherwise they are on
    # one curve.
    file = io.BytesIO()
    picture.save(file, "JXL", quality=quality, effort=9, num_threads=0, use_container=False)
    return file.getvalue()


JPEG = ImageCodec("jpeg", (1, 5, 10, 18, 30, 48, 66, 82), "JPEG", _jpeg)
WEBP = ImageCodec("webp", (0, 3, 8, 18, 38, 66, 82, 90), "WEBP", _webp, bare_webp)
AVIF = ImageCodec("avif", (0, 6, 12, 20, 30, 42, 54, 64), "AVIF", _avif, bare_avif)
JPEG_XL = ImageCodec("jxl", (0, 8, 18, 32, 50, 66, 80, 87), "JXL", _jpeg_xl)

IMAGE_CODECS: Mapping[str, ImageCodec] = {
    codec.name: codec for codec in (JPEG, WEBP, AVIF, JPEG_XL)
}
