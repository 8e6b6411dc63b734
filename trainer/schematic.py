"""Drawn faces: for the probes of bundles and for tests, without anybody's picture."""

import numpy as np
from numpy.typing import NDArray

_SIDE = 48.0


def schematic_faces(count: int, side: int = 48) -> NDArray[np.uint8]:
    """Draw grey faces that differ in expression, light and build.

    Returns uint8 (count, 1, side, side); the same faces for the same arguments.
    """
    return np.stack([schematic_face(index, side)[None] for index in range(count)])


def schematic_face(variant: int, side: int = 48) -> NDArray[np.uint8]:
    """Draw one face, uint8 (side, side): a head with brows, eyes, a nose and a mouth."""
    random = np.random.Generator(np.random.PCG64(variant))
    opening, smile, brow = random.uniform(0.3, 4.5), random.uniform(-3, 3), random.uniform(-2, 2)
    skin, ground, stretch = random.uniform(130, 210), random.uniform(20, 90), random.uniform(0, 3)
    y, x = np.mgrid[0:side, 0:side] * (_SIDE / side)
    face = np.full((side, side), ground)
    face = np.where(_ellipse(x, y, 24, 25, 17 + stretch, 22), skin + (24 - x), face)
    for eye in (15.5, 32.5):
        inward = np.sign(24 - eye)
        face = np.where(_ellipse(x, y, eye, 20, 4, 1.2 + opening / 3), 235, face)
        face = np.where(_ellipse(x, y, eye, 20, 1.7, 1.7), 25, face)
        height = 14.5 - opening / 2 + brow * inward * (x - eye) / 4
        face = np.where((abs(x - eye) < 5) & (abs(y - height) < 1), 45, face)
    face = np.where(_ellipse(x, y, 24, 28, 1.5, 3.5), skin - 35, face)
    lips = 38 - smile * ((x - 24) / 8) ** 2 + smile / 2
    mouth = (abs(x - 24) < 8) & (abs(y - lips) < 0.8 + opening / 2)
    face = np.where(mouth, 50, face)
    pixels: NDArray[np.uint8] = np.clip(np.rint(face), 0, 255).astype(np.uint8)
    return pixels


def _ellipse(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    centre_x: float,
    centre_y: float,
    radius_x: float,
    radius_y: float,
) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = ((x - centre_x) / radius_x) ** 2 + (
        (y - centre_y) / radius_y
    ) ** 2 <= 1
    return inside
