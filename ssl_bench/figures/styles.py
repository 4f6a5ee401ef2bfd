"""How lines and bars differ, in color and in gray."""

from __future__ import annotations

from typing import NamedTuple

COLORS = ("#000000", "#0072B2", "#D55E00", "#007A5A", "#A6478A", "#3A8FC7", "#B27700", "#666666")
"""After Okabe and Ito's palette for color-blind readers, darkened to be legible as text on white."""
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.2, 1.6), (6, 1.6, 1.2, 1.6), (3, 1.2), (8, 2.5))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "////", "++++", "xxxx", "\\\\\\\\", "----")
"""None with dots or circles, which are curves: one bar of them makes an SVG larger by a quarter of a megabyte."""
FILLS = ("0.92", "0.75", "0.45", "0.85", "0.6", "0.3")


class Style(NamedTuple):
    """One way to draw."""

    color: str
    dashes: tuple[float, ...]
    marker: str
    fill: str
    hatch: str


def style_of(index: int) -> Style:
    """The style with this index; they repeat after many more than a reader can tell apart."""
    return Style(
        COLORS[index % len(COLORS)],
        DASHES[index % len(DASHES)] or (1, 0),
        MARKERS[index % len(MARKERS)],
        FILLS[index % len(FILLS)],
        HATCHES[index % len(HATCHES)],
    )
