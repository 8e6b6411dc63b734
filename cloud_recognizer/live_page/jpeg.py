"""What a face would cost as JPEG: a measured figure, shown only where it holds.

`python -m benchmarks wire` chooses the quality at which faces as JPEG are named as well as the
bundle names them, and prints both figures; they stand in the README's table.
"""

from typing import Final

from mien.manifest import ImageSpec

QUALITY: Final = 85
BYTES_A_FACE: Final = 912.0
# The faces that were measured: grey, 48×48 pixels.
_SHAPE: Final = (1, 48, 48)

SOURCE: Final = (
    f"Measured, not estimated: {BYTES_A_FACE:,.0f} bytes are the mean file of 256 FER2013Valid "
    f"faces, 48×48 grey, as JPEG of quality {QUALITY}, the least at which a classifier is as right "
    "as the bundle is. `python -m benchmarks wire`, jpeg_file_bytes_a_face."
)


def jpeg_bytes_a_face(image: ImageSpec) -> float | None:
    """Bytes of a face as JPEG for a bundle's kind of face; None for a kind not measured."""
    shape = (image.channels, image.height, image.width)
    return BYTES_A_FACE if shape == _SHAPE else None
