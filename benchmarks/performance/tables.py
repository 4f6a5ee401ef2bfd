"""All tables and figures of many records against parsing the same files as JSON: CPU time per record, and memory.

    python benchmarks/performance/tables.py [--records 1000] [--repeats 5]

The records under results/ are copied with other seeds until there are enough of them; no file lies beside the copies,
so intervals are made without outcomes. `sslbench table` and `json.loads` of the files run in processes of their own,
one after the other in each repetition; the printed figures are medians over repetitions. CPU time, since other
processes may be running.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_bench.records.state_file import FINGERPRINT, fingerprint

RESULTS = Path(__file__).parents[2] / "results"
PARSE = "import glob, json, sys\nfor path in glob.glob(sys.argv[1] + '/runs/*/record.json'): json.load(open(path))"


@dataclass(frozen=True)
class Cost:
    seconds: float
    """CPU time of the process."""
    memory_mb: float
    """Its highest resident memory."""


@dataclass(frozen=True)
class Result:
    table: Cost
    figure: Cost
    parse: Cost
    records: int

    @property
    def ratio(self) -> float:
        """Time of the tables over that of parsing the files."""
        return self.table.seconds / self.parse.seconds


def write_copies(folder: Path, count: int) -> None:
    """`count` records in `folder`/runs, each with another seed than the copies of the same run."""
    sources = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("runs/*/record.json"))]
    for number in range(count):
        record, seed = dict(sources[number % len(sources)]), number // len(sources)
        record["run_id"] += f"-{seed}"
        record["seed"] = seed
        record["recipe"] = record["recipe"] | {"training": record["recipe"].get("training", {}) | {"seed": seed}}
        if "weights" in record["recipe"]:
            continue
        if FINGERPRINT in record:
            record[FINGERPRINT] = fingerprint(record)
        run_dir = folder / "runs" / record["run_id"]
        run_dir.mkdir(parents=True)
        (run_dir / "record.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def cost(command: Sequence[str]) -> Cost:
    """Of a command, which must succeed."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {said.decode()[-500:]}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def measure(records: int, repeats: int) -> Result:
    sslbench = [sys.executable, "-c", "from ssl_bench.cli.main import app; app()"]
    with tempfile.TemporaryDirectory() as temporary:
        write_copies(Path(temporary), records)
        commands = {
            "table": [*sslbench, "table", "--results", temporary],
            "figure": [*sslbench, "figure", "--results", temporary],
            "parse": [sys.executable, "-c", PARSE, temporary],
        }
        found = [{name: cost(command) for name, command in commands.items()} for _ in range(repeats)]
    middle = {
        name: Cost(
            statistics.median(one[name].seconds for one in found),
            statistics.median(one[name].memory_mb for one in found),
        )
        for name in commands
    }
    return Result(middle["table"], middle["figure"], middle["parse"], records)


def main(arguments: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1000, help="copies of records (default: 1000)")
    parser.add_argument("--repeats", type=int, default=5, help="how often each command runs (default: 5)")
    options = parser.parse_args(arguments)
    result = measure(options.records, options.repeats)
    print(
        f"all tables {result.ratio:.1f} times json.loads of the same {result.records:,} records (median of "
        f"{options.repeats}); CPU seconds: tables {result.table.seconds:.2f}, figures {result.figure.seconds:.2f}, "
        f"json {result.parse.seconds:.2f}; memory: tables {result.table.memory_mb:.0f} MB, figures "
        f"{result.figure.memory_mb:.0f} MB"
    )
    return result


if __name__ == "__main__":
    main()
