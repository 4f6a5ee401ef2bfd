"""The table of all ratios: as Markdown and as JSON, with the machine it was measured on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.performance.ratios import Goal, Ratio
from ssl_bench.runs.device_name import device_name
from ssl_bench.runs.machine import git_commit, versions
from ssl_bench.system.files import write_atomically
from ssl_bench.system.limits import cores

COLUMNS = ("what", "against", "ours", "peer", "ratio", "range", "n", "by CPU time", "CPU share", "goal", "met")
BUSY_NOTE = "busy"
"""In place of yes or no where something else used the cores: such a ratio says nothing either way."""


@dataclass(frozen=True)
class Part:
    """A benchmark's rows, or why it failed, and the machine it ran on."""

    rows: tuple[Ratio, ...] = ()
    failed: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Machine, versions, commit and day in one line."""
        one = self.machine
        return (
            f"{one['device']}, {one['cores']} cores, {one['threads']} threads, torch {one['versions'].get('torch')}, "
            f"commit {_short(str(one['commit']))}, {one['made_utc'][:10]}"
        )


def _short(commit: str) -> str:
    """Twelve digits, and whether there were changes."""
    digits, plus, changes = commit.partition("+")
    return f"{digits[:12]}{plus}{changes}"


def as_rows(ratios: Sequence[Ratio]) -> list[tuple[str, ...]]:
    """The cells of the table."""
    return [
        (
            one.name,
            one.against,
            f"{_three_digits(one.ours)} {one.unit}",
            f"{_three_digits(one.peer)} {one.unit}",
            f"{one.ratio:.2f}",
            f"{one.spread[0]:.2f} to {one.spread[1]:.2f}",
            str(one.n),
            "" if one.ratio_by_cpu_time is None else f"{one.ratio_by_cpu_time:.2f}",
            "" if one.cpu_share is None else f"{one.cpu_share:.0%}",
            one.goal.words,
            _met(one),
        )
        for one in ratios
    ]


def _three_digits(value: float) -> str:
    """10706.4 -> "10,700"."""
    return f"{float(f'{value:.3g}'):,.10g}"


def _met(one: Ratio) -> str:
    met = one.goal.met(one.ratio)
    if met is None:
        return ""
    return BUSY_NOTE if one.busy else "yes" if met else "no"


def markdown(parts: Mapping[str, Part], known: Sequence[str]) -> str:
    """The table with what it was measured on; `known` are all parts there are."""
    places: dict[str, list[str]] = {}
    for name, part in parts.items():
        places.setdefault(part.where, []).append(name)
    where = [f"{place}." for place in places]
    if len(places) > 1:
        where = ["Parts were run apart:", "", *(f"- {', '.join(names)}: {place}" for place, names in places.items())]
    lines = [
        "# Performance",
        "",
        "Ours against a peer, measured in the same run by turns. The ratio is the median over n turns: above 1 ours is "
        "better, unless the goal has an upper bound. A CPU share far below 100 % means that something else ran "
        "meanwhile; such a ratio counts for no goal. Made by `make bench`, or part by part: `python -m "
        "benchmarks.performance NAME --keep`.",
        "",
        *where,
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'|'.join(['---', '---', *['--:'] * 7, '---', '---'])}|",
        *(f"| {' | '.join(row)} |" for part in parts.values() for row in as_rows(part.rows)),
    ]
    notes = [f"{name} failed: {part.failed}" for name, part in parts.items() if part.failed]
    missing = [name for name in known if name not in parts]
    notes += [f"not run: {', '.join(missing)}"] if missing else []
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def this_machine() -> dict[str, Any]:
    """What figures depend on."""
    return {
        "device": device_name(torch.device("cpu")),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "commit": git_commit(),
        "made_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write(folder: Path, parts: Mapping[str, Part], known: Sequence[str]) -> None:
    """FOLDER/performance.json and FOLDER/performance.md."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"parts": {name: asdict(part) for name, part in parts.items()}}
    write_atomically(folder / "performance.json", (json.dumps(document, indent=1) + "\n").encode())
    write_atomically(folder / "performance.md", markdown(parts, known).encode())


def read(folder: Path) -> dict[str, Part]:
    """The parts of FOLDER/performance.json; none where it is not there."""
    path = folder / "performance.json"
    if not path.exists():
        return {}
    parts = json.loads(path.read_text())["parts"]
    return {
        name: Part(tuple(ratio_from(row) for row in part["rows"]), part["failed"], part["machine"])
        for name, part in parts.items()
    }


def ratio_from(row: dict[str, Any]) -> Ratio:
    """A row of JSON as it was written."""
    return Ratio(**row | {"goal": Goal(**row["goal"]), "spread": tuple(row["spread"])})
