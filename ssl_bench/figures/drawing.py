"""A figure drawn with matplotlib: PNG, SVG or PDF.

Lines differ in dashes and markers beside their color, and bars in their hatching, so that a gray print is legible.
Names stand beside what they name; there is no legend. A band or a bar of error is one standard deviation over seeds.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator

from ssl_bench.figures.bars import draw_bars
from ssl_bench.figures.labels import spread_out
from ssl_bench.figures.styles import style_of
from ssl_bench.figures.values import Figure, Line, Panel, Strip

Format = Literal["png", "svg", "pdf"]
FORMATS: tuple[Format, ...] = ("png", "svg", "pdf")
PANEL_INCHES = (4.4, 2.9)
LINE_INCHES = 0.15
"""Height of a line of small text."""
LABEL_HEIGHT = 0.055
"""Of a line of a label, as a share of the axes' height."""
MARKED_POINTS = 30
"""A line of more points has markers at some of them only."""
TITLE_CHARACTERS = 60
LEADER = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2, "relpos": (0.0, 0.5)}
"""The line from a label to the end of what it names."""
RC: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 8, "axes.titlesize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none", "svg.hashsalt": "sslbench",
    "figure.dpi": 160, "hatch.linewidth": 0.6, "text.parse_math": False,
}  # fmt: skip


def draw(figure: Figure, style: Format) -> bytes:
    """The content of a picture file; an SVG is the same bytes for the same values and matplotlib."""
    stream = io.BytesIO()
    metadata = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[style]
    with _settings(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a crowded picture is drawn without its layout
        _drawn(figure).savefig(stream, format=style, metadata=metadata)
    return _with_stable_ids(stream.getvalue(), figure.id) if style == "svg" else stream.getvalue()


def _with_stable_ids(svg: bytes, prefix: str) -> bytes:
    """Number what matplotlib names by a hash of coordinates, whose last digits differ from one layout to the next.

    With the figure's id before them, the names of several figures on one page do not meet.
    """
    numbers: dict[str, int] = {}
    text = svg.decode("utf-8")
    for name in re.findall(r'id="([a-zA-Z][0-9a-f]{10})"', text):
        numbers.setdefault(name, len(numbers))
    if numbers:
        text = re.sub("|".join(numbers), lambda found: f"{prefix}-{numbers[found[0]]}", text)
    return text.encode("utf-8")


def svg_text(figure: Figure) -> str:
    """The figure as an `<svg>` element for a page: without the XML declaration, its texts as text."""
    content = draw(figure, "svg").decode("utf-8")
    return content[content.index("<svg") :]


@contextmanager
def _settings() -> Iterator[None]:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc does not change what is committed
        matplotlib.rcParams.update(RC)
        yield


def _drawn(figure: Figure) -> Canvas:
    columns = max((_columns(len(strip.panels)) for strip in figure.strips), default=1)
    width = max(6.4, columns * PANEL_INCHES[0])
    characters = int(width * 15)
    heights, headings = [], []
    for strip in figure.strips:
        lines = textwrap.wrap(strip.heading, characters)
        rows = -(-len(strip.panels) // _columns(len(strip.panels)))
        headings.append("\n".join(lines))
        heights.append(rows * PANEL_INCHES[1] + len(lines) * LINE_INCHES)
    notes = [line for note in figure.notes for line in textwrap.wrap(note, characters)]
    if notes:
        heights.append(len(notes) * LINE_INCHES + 0.1)
    title = "\n".join((figure.title, figure.source) if figure.source else (figure.title,))
    canvas = Canvas(figsize=(width, sum(heights) + 0.5), layout="constrained")
    canvas.suptitle(title, x=0.01, ha="left", fontsize=9)
    parts: Any = canvas.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0] if heights else []
    for strip, heading, part in zip(figure.strips, headings, parts, strict=False):
        part.suptitle(heading, x=0.01, ha="left", fontsize=8, color="0.3")
        _draw_strip(part, strip)
    if notes:
        parts[-1].text(0.01, 0.5, "\n".join(notes), va="center", fontsize=7, color="0.3")
    return canvas


def _columns(panels: int) -> int:
    return 2 if panels == 4 else max(1, min(3, panels))


def _draw_strip(part: Any, strip: Strip) -> None:
    columns = _columns(len(strip.panels))
    rows = -(-len(strip.panels) // columns)
    grid = part.subplots(rows, columns, squeeze=False, sharey=strip.share_y)
    for index, axes in enumerate(grid.flat):
        if index >= len(strip.panels):
            axes.set_axis_off()
            continue
        panel = strip.panels[index]
        draw_bars(axes, panel) if panel.kind == "bars" else _draw_lines(axes, panel)
        title = ", ".join(filter(None, (panel.title, "published, not measured here" if panel.published else "")))
        title = "\n".join(textwrap.wrap(title, TITLE_CHARACTERS))
        axes.set_title(title, loc="left", pad=22 if panel.kind == "bars" else 6)
        axes.set_xlabel(panel.x_title)
        if not strip.share_y or index % columns == 0:
            axes.set_ylabel(panel.y_title)
        axes.grid(axis="y", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    for axes, panel in zip(grid.flat, strip.panels, strict=False):  # once limits are those of all panels
        if panel.kind == "lines":
            _label_ends(axes, panel)


def _draw_lines(axes: Any, panel: Panel) -> None:
    for line in panel.lines:
        style = style_of(line.style)
        x, y = [point.x for point in line.points], [point.y for point in line.points]
        every = max(1, len(x) // 8) if len(x) > MARKED_POINTS else 1
        if panel.kind == "lines":
            axes.plot(
                x, y, color=style.color, dashes=style.dashes, marker=style.marker, markevery=(every // 2, every),
                markersize=3.5, linewidth=1.3, zorder=3,
            )  # fmt: skip
            _draw_band(axes, line, style.color)
        else:
            deviations = [point.std or 0.0 for point in line.points]
            face = "white" if panel.published else style.color
            axes.errorbar(
                x, y, yerr=deviations if any(deviations) else None, color=style.color, marker=style.marker,
                markerfacecolor=face, markersize=6, linewidth=1.0, dashes=style.dashes, capsize=2,
            )  # fmt: skip
    if panel.kind == "lines":  # over steps or epochs, of which there are no halves
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10]))
    if panel.log_x and all(point.x > 0 for line in panel.lines for point in line.points):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            ticks("{x:,g}")  # 3,000 and not 3 x 10^3
    for reference in panel.references:
        axes.axhline(reference.value, color="0.5", linewidth=0.8, linestyle=":")
        axes.annotate(
            reference.title, (0.0, reference.value), xycoords=axes.get_yaxis_transform(), xytext=(3, 2),
            textcoords="offset points", color="0.4", fontsize=7,
        )  # fmt: skip
    axes.margins(x=0.02, y=0.08)
    if panel.kind == "points":
        _label_points(axes, panel)


def _draw_band(axes: Any, line: Line, color: str) -> None:
    if any(point.std for point in line.points):
        x = [point.x for point in line.points]
        low = [point.y - (point.std or 0.0) for point in line.points]
        high = [point.y + (point.std or 0.0) for point in line.points]
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def _label_ends(axes: Any, panel: Panel) -> None:
    """The name of each line to the right of the axes, at the height where the line ends."""
    lines = [line for line in panel.lines if line.name]
    ends = [line.points[-1] for line in lines]
    low, high = axes.get_ylim()
    heights = [(point.y - low) / (high - low) for point in ends]
    texts = ["\n".join(textwrap.wrap(line.name, 34)) for line in lines]
    places = spread_out(heights, [LABEL_HEIGHT * (text.count("\n") + 1.2) for text in texts])
    for line, text, end, height in zip(lines, texts, ends, places, strict=True):
        style = style_of(line.style)
        axes.annotate(
            text, (end.x, end.y), xytext=(1.04, height), textcoords="axes fraction",
            va="center", color=style.color, fontsize=7.5, annotation_clip=False,
            arrowprops={**LEADER, "color": style.color},
        )  # fmt: skip


def _label_points(axes: Any, panel: Panel) -> None:
    axes.margins(x=0.12, y=0.18)
    for line in panel.lines:
        style = style_of(line.style)
        for index, point in enumerate(line.points):
            name = line.name if index == len(line.points) - 1 else ""
            joined = "" if point.label.startswith("/") else ", "  # DeiT-S/16
            text = joined.join(filter(None, (name, point.label)))
            axes.annotate(
                "\n".join(textwrap.wrap(text, 28)), (point.x, point.y), xytext=(6, 5), textcoords="offset points",
                color=style.color, fontsize=7.5, annotation_clip=False,
            )  # fmt: skip
