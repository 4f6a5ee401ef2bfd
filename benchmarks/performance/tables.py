"""All tables of many records against parsing the same files as JSON: CPU time and memory per record.

    python -m benchmarks.performance.tables [--records 1000] [--repeats 5]

The records under results/ are copied with other seeds until there are enough of them. No file lies beside the copies,
so intervals are made without outcomes. One side reads, proves and folds what `sslbench table` folds, the other calls
`json.loads` on each file.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.performance.ratios import Goal, Ratio, by_turns, share
from benchmarks.performance.report import as_rows
from ssl_bench.records.reading import read_usable
from ssl_bench.records.state_file import FINGERPRINT, fingerprint
from ssl_bench.registry.preset_files import presets_of
from ssl_bench.system.memory import cycles_uncollected
from ssl_bench.tables.fold import fold
from ssl_bench.tables.grouping import RecordFacts
from ssl_bench.tables.loading import built_in_tables, load_table, shown_metrics
from ssl_bench.tables.table import Table

RESULTS = Path(__file__).parents[2] / "results"


def write_copies(folder: Path, count: int) -> list[Path]:
    """`count` records in `folder`/runs, each with another seed than the copies of the same run; their paths."""
    sources = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("runs/*/record.json"))]
    sources = [one for one in sources if "weights" not in one["recipe"]]
    paths = []
    for number in range(count):
        record, seed = dict(sources[number % len(sources)]), number // len(sources)
        record["run_id"] += f"-{seed}"
        record["seed"] = seed
        record["recipe"] = record["recipe"] | {"training": record["recipe"]["training"] | {"seed": seed}}
        if FINGERPRINT in record:
            record[FINGERPRINT] = fingerprint(record)
        paths.append(folder / "runs" / record["run_id"] / "record.json")
        paths[-1].parent.mkdir(parents=True)
        paths[-1].write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return paths


@cycles_uncollected()
def all_tables(results: Path) -> list[Table]:
    """What `sslbench table` does before it writes."""
    sources = [load_table(name) for name in built_in_tables()]
    found, problems = read_usable(results, shown_metrics(sources))
    assert not problems, problems[0]
    records = [RecordFacts(record, presets_of) for _, record in found]
    return [fold(source.description, records, source.published) for source in sources]


def measure(records: int, repeats: int) -> list[Ratio]:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_copies(Path(folder), records)
        all_tables(RESULTS)  # imports what is needed
        before = resident_kb()
        tables = all_tables(Path(folder))
        kept = (resident_kb() - before) / records
        assert sum(len(row.runs) for table in tables for block in table.blocks for row in block.rows) >= records / 2
        del tables
        pairs = by_turns(
            lambda: all_tables(Path(folder)), lambda: [json.loads(path.read_bytes()) for path in paths], repeats
        )
        file_kb = sum(path.stat().st_size for path in paths) / records / 1024
    times = [(1000 * ours.cpu / records, 1000 * peer.cpu / records) for ours, peer in pairs]
    return [
        share(f"all tables of {records:,} records", "json.loads of the files", times, "ms CPU", Goal(at_most=6)),
        share("memory of a record in all tables", "size of its file", [(kept, file_kb)], "KB", Goal(at_most=4)),
    ]


def resident_kb() -> float:
    """Highest resident memory of this process so far."""
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def ratios(*, quick: bool = False) -> list[Ratio]:
    """1,000 records on one thread."""
    return measure(60, 1) if quick else measure(1000, 5)


def main(arguments: Sequence[str] | None = None) -> list[Ratio]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1000, help="copies of records (default: 1000)")
    parser.add_argument("--repeats", type=int, default=5, help="how often each side runs (default: 5)")
    options = parser.parse_args(arguments)
    found = [replace(one, goal=Goal()) for one in measure(options.records, options.repeats)]
    for row in as_rows(found):
        print("  ".join(row))
    return found


if __name__ == "__main__":
    main()
