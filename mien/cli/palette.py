"""One colour for each expression, the same on the terminal, in the plot and in the video.

Okabe and Ito's colours, which people with any of the common colour deficiencies tell apart
(Wong, "Points of view: Color blindness", Nature Methods 8, 2011), with two greys.
"""

COLOURS = {
    "neutral": "#a6a6a6",
    "happiness": "#e69f00",
    "surprise": "#56b4e9",
    "sadness": "#0072b2",
    "anger": "#d55e00",
    "disgust": "#009e73",
    "fear": "#cc79a7",
    "contempt": "#4d4d4d",
}
_OTHER = ("#f0e442", "#8c6d31", "#5b3a8c", "#1b7837")


def colour(expression: str) -> str:
    """`#rrggbb` for an expression; bundles may name some that are not in the table."""
    known = COLOURS.get(expression)
    return known if known else _OTHER[sum(expression.encode()) % len(_OTHER)]


def rgb(expression: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255."""
    value = colour(expression).removeprefix("#")
    return int(value[0:2], 16), int(value[2:4], 16), int(value[4:6], 16)
