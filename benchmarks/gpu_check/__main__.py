"""Whether sslbench works on this machine's CUDA device, in under 10 minutes: `make gpu-check`.

    python -m benchmarks.gpu_check [--only PART] [--results DIR]

`sslbench run` is stopped and resumed, every registered method trains on deit_s16 and resnet50, every evaluator runs,
the planner's memory is compared with the allocator's under a cap of 4 GB, the device with the CPU, the step with
lightly's. Each part has a process of its own: a kernel that fails ends that part, and what was checked before stays.
Prints a table and writes results/gpu/DEVICE.json and .md. Without a device it says so, tests nothing and exits 0.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.gpu_check.checks import Bench, Check
from benchmarks.gpu_check.report import markdown, write
from ssl_bench.runs.device_name import device_name
from ssl_bench.system import cards

PARTS = {
    "whole_run": 65.0,
    "training": 160.0,
    "agreement": 75.0,
    "memory": 165.0,
    "evaluations": 60.0,
    "speed": 65.0,
}
"""Modules of this folder, and the seconds that each may take: together less than 10 minutes."""
ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--results", type=Path, default=ROOT / "results", metavar="DIR", help="written here, in gpu/")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if not cards.cuda_is_available():
        reason = cards.why_no_card()
        print(f"no CUDA device here{f': {reason}' if reason else ''}. Nothing was tested.")
        return 0
    if reason := cards.why_unusable(0):
        print(f"{reason}. Nothing was tested.")
        return 1
    device = torch.device("cuda", 0)
    if given.into is not None:  # the process of one part
        run_part(given.only[0], Bench(device), given.into)
        return 0
    found: list[Check] = []
    for part in given.only or PARTS:
        print(f"== {part}", flush=True)
        found += in_own_process(part, PARTS[part])
    name = device_name(device)
    folder = given.results / "gpu"
    path = write(folder, re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower(), name, found)
    print("\n" + markdown(name, found) + f"\nwritten to {path}")
    return 1 if any(check.passed is False for check in found) else 0


def run_part(part: str, bench: Bench, into: Path) -> None:
    """Every check of a part, each written as soon as it is done."""
    with into.open("a") as file:
        for check in import_module(f"benchmarks.gpu_check.{part}").checks(bench):
            file.write(json.dumps(asdict(check)) + "\n")
            file.flush()
            print(line(check), flush=True)


def line(check: Check) -> str:
    """A check as it is printed while it runs."""
    outcome = {True: "passed", False: "FAILED", None: "-"}[check.passed]
    return f"  {outcome:<7} {check.name:<36} {check.words} ({check.seconds:.1f} s)"


def in_own_process(part: str, seconds: float, command: Sequence[str] | None = None) -> list[Check]:
    """The part's checks, and a failing one where its process dies or takes too long."""
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "checks.jsonl"
        into.touch()
        words = command or [sys.executable, "-m", "benchmarks.gpu_check", "--only", part, "--into", str(into)]
        trouble = ""
        try:
            done = subprocess.run(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=seconds)
            if done.returncode:
                lines = done.stderr.strip().splitlines()
                trouble = f"its process ended with {done.returncode}: {lines[-1] if lines else 'no message'}"
        except subprocess.TimeoutExpired:
            trouble = f"not tested: the part was stopped after {seconds:.0f} s"
        found = [Check(**json.loads(text)) for text in into.read_text().splitlines()]
    if trouble:
        found.append(Check(part, "the rest of this part", False, trouble))
        print(line(found[-1]), flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
