"""The page: the template filled with contents, every text escaped, style and script inside."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import jinja2
from markupsafe import Markup

from ssl_bench.report.contents import Contents

HERE = Path(__file__).parent
MARK = '<meta name="generator" content="sslbench report">'
"""Stands in every page that was made here: only such a file is written over."""


def page(contents: Contents) -> str:
    """The whole file. The same contents give the same text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    script = (HERE / "page.js").read_text("utf-8")
    return environment.get_template("page.html").render(
        contents=contents,
        mark=Markup(MARK),
        style=Markup((HERE / "page.css").read_text("utf-8")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        safe=Markup,
    )
