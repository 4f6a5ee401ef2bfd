"""The checks as a table and as a record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.gpu_check.checks import Check
from ssl_bench.runs.machine import git_commit, versions
from ssl_bench.system.files import write_atomically

OUTCOMES = {True: "passed", False: "**failed**", None: ""}


def markdown(device: str, checks: Sequence[Check]) -> str:
    """A table of all checks with a summary before it."""
    failed = sum(check.passed is False for check in checks)
    passed = sum(check.passed is True for check in checks)
    undecided = len(checks) - passed - failed
    lines = [
        f"# {device}",
        "",
        f"{passed} passed, {failed} failed, {undecided} without a verdict; torch {torch.__version__}. Made by "
        "`make gpu-check`; tolerances stand in benchmarks/gpu_check.",
        "",
        "Missing: the step of DINO's authors. Their code cannot be downloaded here; lightly's blocks stand in for it.",
        "",
        "| part | what | outcome | figures | s |",
        "|---|---|---|---|--:|",
    ]
    for check in checks:
        words = check.words.replace("|", "/")
        lines.append(f"| {check.part} | {check.name} | {OUTCOMES[check.passed]} | {words} | {check.seconds:.1f} |")
    return "\n".join(lines) + "\n"


def write(folder: Path, name: str, device: str, checks: Sequence[Check]) -> Path:
    """FOLDER/NAME.json and FOLDER/NAME.md; returns the latter."""
    document = {
        "device": device,
        "versions": versions(),
        "commit": git_commit(),
        "made_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "checks": [asdict(check) for check in checks],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{name}.json", (json.dumps(document, indent=1) + "\n").encode())
    write_atomically(folder / f"{name}.md", markdown(device, checks).encode())
    return folder / f"{name}.md"
