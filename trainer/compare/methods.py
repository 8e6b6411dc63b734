"""What the methods are called, who belongs with whom, and how they are drawn.

Colours are Okabe and Ito's, which people with any of the common colour deficiencies tell apart
(Wong, "Points of view: Color blindness", Nature Methods 8, 2011); markers say the same again.
"""

from collections.abc import Iterable
from dataclasses import dataclass

# All Bjøntegaard deltas are against this one: the generic codec, the original classifier.
ANCHOR = "pretrained"
UNCOMPRESSED = "uncompressed"
EDGE_ONLY = "edge-only"
MIRRORED = "uncompressed-mirrored"


@dataclass(frozen=True)
class Method:
    """A method for people.

    panel: "original" where the classifier never saw a coded face, "adapted" where it was trained
    on this method's output, "" where no picture is sent or none is coded.
    """

    label: str
    panel: str
    colour: str
    marker: str


_KNOWN = {
    UNCOMPRESSED: Method("uncompressed (PNG)", "", "#555555", ""),
    MIRRORED: Method("uncompressed, the mean over both mirror images", "", "#555555", ""),
    ANCHOR: Method("generic learned codec", "original", "#000000", "o"),
    "finetuned": Method("codec fine-tuned", "original", "#0072b2", "s"),
    "original-on-joint": Method("joint codec, original classifier", "original", "#d55e00", "D"),
    "jpeg": Method("JPEG", "original", "#e69f00", "v"),
    "webp": Method("WebP", "original", "#56b4e9", "^"),
    "avif": Method("AVIF", "original", "#009e73", "<"),
    "avif-bare": Method("AVIF without its container", "original", "#5b3a8c", "<"),
    "jxl": Method("JPEG XL", "original", "#cc79a7", ">"),
    "adapted": Method("generic learned codec, classifier adapted", "adapted", "#000000", "o"),
    "joint": Method("codec and classifier jointly", "adapted", "#d55e00", "D"),
    "jpeg-adapted": Method("JPEG, classifier adapted", "adapted", "#e69f00", "v"),
    "webp-adapted": Method("WebP, classifier adapted", "adapted", "#56b4e9", "^"),
    "avif-adapted": Method("AVIF, classifier adapted", "adapted", "#009e73", "<"),
    "avif-bare-adapted": Method(
        "AVIF without its container, classifier adapted", "adapted", "#5b3a8c", "<"
    ),
    "jxl-adapted": Method("JPEG XL, classifier adapted", "adapted", "#cc79a7", ">"),
    "joint-on-uncompressed": Method("joint classifier on uncompressed faces", "", "#d55e00", ""),
    EDGE_ONLY: Method("classified on the device, 1 byte", "", "#555555", "*"),
}
_ORDER = tuple(_KNOWN)
_SPARE_COLOURS = ("#5b3a8c", "#8c6d31", "#1b7837", "#a6761d")


def method(name: str) -> Method:
    """How a method is shown; an unknown one under its own id, with the original classifiers."""
    if name in _KNOWN:
        return _KNOWN[name]
    panel = "adapted" if name.endswith("-adapted") or name.startswith("joint") else "original"
    return Method(name, panel, _SPARE_COLOURS[sum(name.encode()) % len(_SPARE_COLOURS)], "P")


def in_order(names: Iterable[str]) -> list[str]:
    """Known methods in the order in which they are told, then the others by id."""
    return sorted(names, key=lambda name: (_rank(name), name))


def _rank(name: str) -> int:
    return _ORDER.index(name) if name in _KNOWN else len(_ORDER)
