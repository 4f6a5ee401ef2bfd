"""Style and script of the page: contrast by WCAG's formula, and the order of sorted rows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import product

import pytest

from ssl_bench.report.page import HERE

CSS = (HERE / "page.css").read_text("utf-8")
SCRIPT = (HERE / "page.js").read_text("utf-8")


def luminance(color: str) -> float:
    """WCAG 2.2, relative luminance of #rrggbb."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("number", range(3), ids=["light", "dark", "print"])
def test_texts_stand_out_from_what_is_behind_them(number: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[number]))
    assert len(blocks) == 3
    for text, behind in product(("ink", "quiet", "link"), ("paper", "band")):
        lighter, darker = sorted((luminance(colors[text]), luminance(colors[behind])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, behind)


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the page's script, which needs node")
@pytest.mark.parametrize(
    ("numeric", "descending", "texts", "expected"),
    [
        (True, True, ["3", "-2", "", "10", "collapsed", "none"], ["10", "3", "-2", "", "collapsed", "none"]),
        (True, False, ["3", "-2", "", "10"], ["-2", "3", "10", ""]),
        (False, False, ["deit_s16", "deit_s8", "", "byol"], ["byol", "deit_s8", "deit_s16", ""]),
        (False, True, ["a", "", "b"], ["b", "a", ""]),
    ],
)
def test_sorted_rows(numeric: bool, descending: bool, texts: list[str], expected: list[str]) -> None:
    function = SCRIPT[SCRIPT.index("function sorted") : SCRIPT.index("// A link to")]
    code = f"""{function}
    const rows = {json.dumps(texts)}.map((text) => ({{ cells: [{{ dataset: {{}}, textContent: text }}] }}));
    const order = sorted(rows, 0, {json.dumps(numeric)}, {json.dumps(descending)});
    console.log(JSON.stringify(order.map((row) => row.cells[0].textContent)));"""
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == expected
