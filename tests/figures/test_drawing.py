"""Pictures: kinds of file, the same bytes again, names as text, styles that differ in gray."""

from __future__ import annotations

from itertools import combinations

import matplotlib
import pytest

from ssl_bench.figures.drawing import FORMATS, draw, svg_text
from ssl_bench.figures.styles import DASHES, HATCHES, style_of
from ssl_bench.figures.values import Figure, Kind, Line, Panel, Point, Reference, Strip

BEGINS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def figure(kind: Kind = "lines", lines: int = 2) -> Figure:
    points = [Point(float(x), x + 1.0, 0.5 if x else None, 2, "a group") for x in range(kind != "bars", 2)]
    made = tuple(Line(f"line {n} & more", tuple(points), n) for n in range(lines))
    references = (Reference("ln K", 2.0),) if kind == "lines" else ()
    panel = Panel(kind, "a title", "step", "loss", made, references, ("a group", "another"), kind == "points")
    printed = Panel(kind, "", "step", "loss", made, (), ("a group", "another"), published="Published: a thesis")
    return Figure("id", "A figure", "", (Strip("a heading", (panel,)), Strip("", (printed,))), ("a note",))


@pytest.mark.parametrize("style", FORMATS)
def test_a_picture_is_of_its_kind(style: str) -> None:
    assert draw(figure(), style).startswith(BEGINS[style])  # type: ignore[arg-type]


def test_a_name_with_dollars_is_a_name_and_no_mathematics() -> None:
    line = Line(r"a$b_{c$ \frac{", (Point(1.0, 2.0), Point(2.0, 3.0)))
    panel = Panel("lines", "$x$", "step", "loss", (line,))
    drawn = svg_text(Figure("id", "$title$", "", (Strip("", (panel,)),)))
    assert all(text in drawn for text in (line.name, "$x$", "$title$"))


@pytest.mark.parametrize("kind", ["lines", "points", "bars"])
def test_an_svg_has_its_texts_and_is_the_same_whatever_a_user_set(kind: Kind) -> None:
    first = svg_text(figure(kind))
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30}):
        assert svg_text(figure(kind)) == first
        assert matplotlib.rcParams["font.size"] == 30, "what a user set is put back"
    assert first.startswith("<svg")
    for text in ("line 1 &amp; more", "A figure", "a heading", "a note", "published, not measured here", "a group"):
        assert (text in first) == (text != "a group" or kind != "lines"), text


def test_lines_and_bars_differ_without_color() -> None:
    for one, other in combinations(range(12), 2):
        assert (style_of(one).dashes, style_of(one).marker) != (style_of(other).dashes, style_of(other).marker)
    assert len({(style_of(n).fill, style_of(n).hatch) for n in range(len(HATCHES))}) == len(HATCHES)
    assert len({style_of(n).dashes for n in range(len(DASHES))}) == len(DASHES)


def test_a_figure_without_panels_can_be_drawn() -> None:
    assert draw(Figure("id", "A figure", "", ()), "svg")
