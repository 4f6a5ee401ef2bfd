"""Damage to files: single flipped bits, and changed structure, drawn from a seed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

ODD_JSON = (
    "NaN", "-Infinity", "1e999", "9" * 5000, str(2**70), "[" * 200 + "]" * 200, '"\\udce9"', "null", "[]", "{}",
    "true", '""', "-1",
)  # fmt: skip


def bit_flips(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` copies with one bit changed each."""
    rng = Random(seed)
    for _ in range(count):
        flipped = bytearray(content)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        yield bytes(flipped)


def json_mutations(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` copies with one field dropped, renamed, changed or given twice, or the text cut or repeated."""
    rng = Random(seed)
    for _ in range(count):
        kind = rng.choice(["drop", "rename", "change", "odd", "twice", "add", "swap", "cut", "repeat"])
        if kind == "cut":
            yield content[: rng.randrange(len(content))]
            continue
        if kind == "repeat":
            yield content * 2
            continue
        tree = json.loads(content)
        holder, key = rng.choice(list(_places(tree)))
        value = holder[key]
        mark = f'"<{rng.getrandbits(64)}>"'
        if kind == "drop":
            del holder[key]
        elif kind == "rename" and isinstance(holder, dict):
            holder[f"{key}_"] = holder.pop(key)
        elif kind == "add" and isinstance(holder, dict):
            holder["unknown"] = 1
        elif kind == "swap":
            other, place = rng.choice(list(_places(tree)))
            holder[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(value)
        elif kind == "change":
            holder[key] = _changed(value, rng)
        else:
            holder[key] = json.loads(mark)
            inserted = rng.choice(ODD_JSON)
            if kind == "twice" and isinstance(holder, dict):
                inserted = f"{json.dumps(value)}, {json.dumps(key)}: {json.dumps(_changed(value, rng))}"
            yield json.dumps(tree, indent=1).replace(mark, inserted).encode()
            continue
        yield json.dumps(tree, indent=1).encode()


def toml_mutations(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` copies with one line dropped, doubled, changed or moved, or the text cut."""
    rng = Random(seed)
    for _ in range(count):
        lines = content.decode().splitlines(keepends=True)
        at = rng.randrange(len(lines))
        key = lines[at].partition(" =")[0]
        kind = rng.choice(["drop", "twice", "odd", "rename", "move", "cut", "digit"])
        if kind == "cut":
            yield content[: rng.randrange(len(content))]
            continue
        if kind == "drop":
            del lines[at]
        elif kind == "twice":
            lines.insert(at, lines[at])
        elif kind == "odd":
            lines[at] = f"{key} = {rng.choice([*ODD_JSON, 'nan', 'inf'])}\n"
        elif kind == "rename":
            lines[at] = "x" + lines[at]
        elif kind == "move":
            lines.insert(rng.randrange(len(lines)), lines.pop(at))
        else:
            lines[at] = "".join(str((int(c) + 1) % 10) if c.isdigit() else c for c in lines[at])
        yield "".join(lines).encode()


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) below `tree`."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def _changed(value: Any, rng: Random) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + rng.choice([1, -1, 0.5, 40])
    return f"{value}x" if isinstance(value, str) else 7
