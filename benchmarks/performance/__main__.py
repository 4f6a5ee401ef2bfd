"""All performance benchmarks as one table of ratios: `make bench`.

    python -m benchmarks.performance [NAME ...] [--keep] [--quick] [--results DIR]

Each benchmark is a module of this folder with `ratios(quick)` and runs in a process of its own; one that fails stops no
other. The whole set is written to results/performance.json and results/performance.md; with names it is only printed,
unless --keep puts those parts in the place of earlier ones there. With --quick nothing is written. Options of a single
one: `python -m benchmarks.performance.knn --help`. The name `scaling`, alone, draws curves of time and memory instead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

from benchmarks.performance.ratios import Goal
from benchmarks.performance.report import Part, markdown, ratio_from, read, this_machine, write

PARTS = (
    "views",
    "knn",
    "propagation",
    "davis_scoring",
    "dino_step",
    "method_step",
    "probe",
    "shards",
    "tables",
    "memory",
)
CURVES = "scaling"
"""Has no ratios, and is run by its name alone."""
ROOT = Path(__file__).parents[2]
MOST_SECONDS = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"benchmarks: {', '.join(PARTS)} [default: all]")
    parser.add_argument("--quick", action="store_true", help="small sizes and few turns: whether it runs, no figures")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "results", metavar="DIR", help="where the set is written"
    )
    parser.add_argument(
        "--keep", action="store_true", help="write the named benchmarks beside the others written there"
    )
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.names == [CURVES]:
        words = ["--results", str(given.results), *(["--quick"] if given.quick else [])]
        return int(import_module(f"benchmarks.performance.{CURVES}").main(words))
    unknown = [name for name in given.names if name not in PARTS]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]!r}: {', '.join(PARTS)}; or {CURVES}, alone")
    if given.into is not None:  # the process of one benchmark
        rows = import_module(f"benchmarks.performance.{given.names[0]}").ratios(quick=given.quick)
        if given.quick:
            rows = [replace(row, goal=Goal()) for row in rows]
        given.into.write_text(json.dumps([asdict(row) for row in rows]))
        return 0
    ran = {name: _announced(name, quick=given.quick) for name in PARTS if name in (given.names or PARTS)}
    print("\n" + markdown(ran, list(ran)))
    failed = any(part.failed for part in ran.values())
    if given.quick or (given.names and not given.keep):
        return 1 if failed else 0
    parts = {**read(given.results), **ran} if given.names else ran
    write(given.results, {name: parts[name] for name in PARTS if name in parts}, PARTS)
    print(f"written to {given.results / 'performance.md'} and .json")
    return 1 if failed else 0


def _announced(name: str, *, quick: bool) -> Part:
    print(f"== {name}", flush=True)
    part = run_one(name, quick=quick)
    if part.failed:
        print(f"{name} failed: {part.failed}", flush=True)
    return part


def run_one(name: str, *, quick: bool) -> Part:
    """One benchmark in a process of its own, whose output passes through."""
    machine = this_machine()
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.performance", name, "--into", str(into)]
        try:
            done = subprocess.run(
                [*command, *(["--quick"] if quick else [])], cwd=ROOT, stderr=subprocess.PIPE, text=True,
                timeout=MOST_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Part(failed=f"not done after {MOST_SECONDS:.0f} s", machine=machine)
        if done.returncode or not into.exists():
            lines = done.stderr.strip().splitlines()
            return Part(failed=lines[-1] if lines else f"exit status {done.returncode}", machine=machine)
        return Part(tuple(ratio_from(row) for row in json.loads(into.read_text())), machine=machine)


if __name__ == "__main__":
    sys.exit(main())
