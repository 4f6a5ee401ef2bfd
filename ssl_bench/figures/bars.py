"""Bars by category: the name of each below it, its value above it, the category over its group."""

from __future__ import annotations

import textwrap
from typing import Any

from ssl_bench.figures.styles import style_of
from ssl_bench.figures.values import Panel


def draw_bars(axes: Any, panel: Panel) -> None:
    """Draw into `axes`. A category without a value of one series has a gap there."""
    width = 0.8 / max(1, len(panel.lines))
    ticks, names = [], []
    for place, line in enumerate(panel.lines):
        style = style_of(line.style)
        for point in line.points:
            x = point.x - 0.4 + (place + 0.5) * width
            axes.bar(
                x, point.y, width * 0.92, yerr=point.std, capsize=2, color="white" if panel.published else style.fill,
                edgecolor="0.2", linewidth=0.7, hatch=style.hatch, linestyle="--" if panel.published else "-",
                error_kw={"linewidth": 0.8},
            )  # fmt: skip
            above = (point.std or 0.0) + point.y
            axes.annotate(
                f"{point.y:.1f}", (x, above), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7
            )
            ticks.append(x)
            names.append(line.name)
    axes.set_xticks(ticks, names, rotation=35, ha="right", rotation_mode="anchor", fontsize=7.5)
    axes.tick_params(axis="x", length=0)
    axes.margins(y=0.12)
    for index, category in enumerate(panel.categories):
        axes.text(
            index, 1.01, "\n".join(textwrap.wrap(category, 26)), transform=axes.get_xaxis_transform(), ha="center",
            va="bottom", fontsize=7.5,
        )  # fmt: skip
