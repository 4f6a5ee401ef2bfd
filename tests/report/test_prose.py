"""The user's own text: Markdown is kept, nothing active is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssl_bench.errors import UserError
from ssl_bench.report.prose import LARGEST_FILE, prose_html, read_prose


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# Reading\n\n**bold** and `code`", "<h3>Reading</h3>\n<p><strong>bold</strong> and <code>code</code></p>\n"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>\n"),
        ("a <img src=x onerror=y> b", "<p>a &lt;img src=x onerror=y&gt; b</p>\n"),
        ("[the paper](https://a.b/c)", "<p>the paper (<code>https://a.b/c</code>)</p>\n"),
        ("<https://a.b>", "<p>https://a.b</p>\n"),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>\n"),
        ("![maps](https://a.b/c.png)", "<p>[picture: maps]</p>\n"),
        ("[![maps](c.png)](https://a.b)", "<p>[picture: maps] (<code>https://a.b</code>)</p>\n"),
    ],
)
def test_markdown_becomes_words(text: str, html: str) -> None:
    assert prose_html(text) == html


def test_a_wide_table_can_be_scrolled_by_key() -> None:
    html = prose_html("| a | b |\n|---|--:|\n| 1 | 2 |")
    assert html.startswith('<div class="wide" tabindex="0"><table>')
    assert html.count("</table></div>") == 1


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.md").write_bytes(b"caf\xe9")
    (tmp_path / "large.md").write_bytes(b"a" * (LARGEST_FILE + 1))
    for name, said in (("latin.md", "is not UTF-8"), ("large.md", "are the most"), ("none.md", "No such file")):
        with pytest.raises(UserError, match=said):
            read_prose(tmp_path / name)
