"""What a table's rows are called in a figure: short, and no two alike."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ssl_bench.figures.description import FigureDescription
from ssl_bench.tables.description import Key
from ssl_bench.tables.table import Block, Row, Table


@dataclass(frozen=True)
class Named:
    """A row of a block with what it is called there."""

    name: str
    row: Row


def named_rows(table: Table, block: Block) -> tuple[list[Named], str]:
    """The rows with short names, what they all share left out, and what that is as a part of the heading.

    A row's name has words of its settings only where its keys are those of another row, and only those that the two do
    not share.
    """
    keys = [[_words(key, text) for key, text in zip(table.keys, row.keys, strict=True) if text] for row in block.rows]
    settings = [_settings(row) for row in block.rows]
    words = [[*of_keys, *of_settings] for of_keys, of_settings in zip(keys, settings, strict=True)]
    common = _shared(words) if len(words) > 1 else []
    named = []
    for row, of_keys, of_settings in zip(block.rows, keys, settings, strict=True):
        shared = _shared([other for alike, other in zip(keys, settings, strict=True) if alike == of_keys])
        telling = [word for word in of_settings if word not in shared] if keys.count(of_keys) > 1 else []
        shown = [word for word in (*of_keys, *telling) if word not in common]
        name = ", ".join(shown) or ", ".join(of_keys) or " ".join(row.runs)
        ended = "" if row.finished else "collapsed" if row.collapsed else "failed"
        named.append(Named(f"{name} ({ended})" if ended else name, row))
    return named, "".join(f", {word}" for word in common)


def _shared(words: Sequence[Sequence[str]]) -> list[str]:
    """What stands in all of them."""
    return [word for word in words[0] if all(word in others for others in words)]


def _settings(row: Row) -> list[str]:
    """What the row names of its settings, one by one; commas within brackets are of one value."""
    return re.split(r", (?![^\[\]]*\])", row.settings) if row.settings else []


def series_and_labels(description: FigureDescription, table: Table, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(name of its series, label of its point or category) of each row; settings only where two would be alike."""
    ids = [key.id for key in table.keys]
    split = [split_texts(description, table, dict(zip(ids, row.keys, strict=True))) for row in rows]
    return [
        (name, label if split.count((name, label)) == 1 else ", ".join(filter(None, (label, row.settings))))
        for (name, label), row in zip(split, rows, strict=True)
    ]


def split_texts(description: FigureDescription, table: Table, texts: Mapping[str, str]) -> tuple[str, str]:
    """(name of the series, label) for the texts of a row by its ids, measured or printed."""
    if not all(one in texts for one in description.series):  # printed rows join by what a variant shows
        texts = _shown_by_variant(table, texts)
    name = ", ".join(filter(None, (texts.get(one, "") for one in description.series)))
    ids = [key.id for key in table.keys if key.id not in description.series]
    label = ", ".join(filter(None, (texts.get(one, "") for one in ids)))
    if description.series_pattern and (found := re.search(description.series_pattern, name)):
        rest = name[: found.start()] + name[found.end() :]
        name, label = found[0], ", ".join(filter(None, (rest, label)))
    return name, label


def in_order(description: FigureDescription, names: Collection[str]) -> list[str]:
    """The names of bars in the description's order, then the others."""
    return [*(name for name in description.bars if name in names), *(n for n in names if n not in description.bars)]


def _words(key: Key, text: str) -> str:
    """A yes or no with what it answers: "multi-crop", "no multi-crop"."""
    title = key.title or key.id
    return {"yes": title, "no": f"no {title}"}.get(text, text)


def _shown_by_variant(table: Table, texts: Mapping[str, str]) -> Mapping[str, str]:
    variants = table.description.runs.variant if table.description.runs else ()
    for variant in variants:
        shared = [name for name in variant.show if name in texts]
        if shared and all(variant.show[name] == texts[name] for name in shared):
            return {**texts, **variant.show}
    return texts
