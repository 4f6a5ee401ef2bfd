"""The table of all ratios: as Markdown and as JSON, with the machine it was measured on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
class Failure:
    """A benchmark that failed, and why."""

    part: str
    reason: str


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


def markdown(ratios: Sequence[Ratio], failures: Sequence[Failure], machine: dict[str, Any]) -> str:
    """The table with what it was measured on."""
    lines = [
        "# Performance",
        "",
        "Ours against a peer, measured in the same run by turns. The ratio is the median over n turns: above 1 ours is "
        "better, unless the goal has an upper bound. A CPU share far below 100 % means that something else ran "
        "meanwhile; such a ratio counts for no goal. Made by `make bench`.",
        "",
        f"{machine['device']}, {machine['cores']} cores, {machine['threads']} threads, torch "
        f"{machine['versions'].get('torch')}, commit {str(machine['commit'])[:12]}, {machine['made_utc'][:10]}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'|'.join(['---', '---', *['--:'] * 7, '---', '---'])}|",
        *(f"| {' | '.join(row)} |" for row in as_rows(ratios)),
    ]
    if failures:
        lines += ["", *(f"{one.part} failed: {one.reason}" for one in failures)]
    return "\n".join(lines) + "\n"


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


def write(folder: Path, ratios: Sequence[Ratio], failures: Sequence[Failure], machine: dict[str, Any]) -> None:
    """FOLDER/performance.json and FOLDER/performance.md."""
    document = machine | {"rows": [asdict(one) for one in ratios], "failed": [asdict(one) for one in failures]}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "performance.json", (json.dumps(document, indent=1) + "\n").encode())
    write_atomically(folder / "performance.md", markdown(ratios, failures, machine).encode())


def ratio_from(row: dict[str, Any]) -> Ratio:
    """A row of JSON as it was written."""
    return Ratio(**row | {"goal": Goal(**row["goal"]), "spread": tuple(row["spread"])})
