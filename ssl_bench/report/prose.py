"""The user's own text: CommonMark with tables, nothing of it active: raw HTML is text, links and pictures are words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from ssl_bench.errors import UserError

LARGEST_FILE = 1 << 20
HEADINGS_BELOW = 2
"""Levels by which headings move down, so that they stand below the page's own."""


def read_prose(path: Path) -> str:
    """The text of a Markdown file. Raises `UserError` for one that cannot be read, is no text, or is too large."""
    try:
        content = path.expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"cannot read --findings {path}: {error.strerror}. Give a Markdown file") from None
    if len(content) > LARGEST_FILE:
        raise UserError(f"--findings {path} has {len(content):,} bytes; {LARGEST_FILE:,} are the most")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"--findings {path} is not UTF-8 text: {error}. Give a Markdown file") from None


def prose_html(text: str) -> str:
    """Markdown as HTML without anything that runs, loads or leads out of the page."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + HEADINGS_BELOW)}"
        if token.children:
            token.children = _without_links(token.children)
    html: str = parser.renderer.render(tokens, parser.options, {})
    return html.replace("<table>", '<div class="wide" tabindex="0"><table>').replace("</table>", "</table></div>")


def _without_links(tokens: Sequence[Token]) -> list[Token]:
    """A link's text with its address behind it where that says more, a picture's description in place of it."""
    kept: list[Token] = []
    addresses: list[str] = []
    for token in tokens:
        if token.type == "link_open":
            addresses.append("" if token.info == "auto" else str(token.attrGet("href") or ""))
        elif token.type == "link_close":
            if address := addresses.pop():
                kept += [_text(" ("), Token("code_inline", "code", 0, content=address), _text(")")]
        elif token.type == "image":
            kept.append(_text(f"[picture: {token.content or token.attrGet('src')}]"))
        else:
            kept.append(token)
    return kept


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)
