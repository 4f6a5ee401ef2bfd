"""Would `sslbench bench` have predicted recorded runs within 25 % after the first run of each kind?

    python -m benchmarks.reliability.forecast [--results results]

Takes the records under DIR/runs, lets what `bench` predicts from (`studies.costs`) learn the first run of each kind on
each machine, and compares what it then says of all later ones with what they took, wall clock time and CPU time. Other
work on the machine makes the wall clock time another one, which no forecast can know: the CPU time decides. Exit status
1 where the total is off by more than 25 %, or no kind was run twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ssl_bench.records.reading import read_all
from ssl_bench.records.recipe import Recipe
from ssl_bench.records.record import RunRecord
from ssl_bench.studies.costs import Costs, Machine, sample_of
from ssl_bench.studies.plan import kind

LIMIT = 0.25


@dataclass(frozen=True)
class Later:
    """A run of a kind of which another one had ended before."""

    kind: str
    run_id: str
    predicted: float
    taken: float

    @property
    def off_by(self) -> float:
        """(predicted - taken) / taken."""
        return (self.predicted - self.taken) / self.taken


def later_runs(records: Iterable[RunRecord]) -> list[Later]:
    """Every run but the first of its kind on its machine, as predicted from that one alone."""
    first: dict[tuple[Machine, str], RunRecord] = {}
    found = []
    for record in sorted(records, key=lambda one: (one.finished_utc, one.run_id)):
        machine = machine_of(record)
        recipe = Recipe.model_validate(record.recipe)
        name = kind(recipe)
        before = first.setdefault((machine, name), record)
        sample = sample_of(record, machine)
        cost = Costs(machine, [before]).of(recipe)
        if before is not record and sample is not None and cost is not None:
            found.append(Later(name, record.run_id, cost.seconds, sample.seconds(recipe.training.epochs)))
    return found


def machine_of(record: RunRecord) -> Machine:
    """What it was made on, with its number of threads."""
    there = record.machine
    return Machine(there.device, there.platform, there.cores, there.threads)


def in_cpu_time(record: RunRecord) -> RunRecord | None:
    """The record of a machine with nothing else to do; None where the record does not say.

    Training takes its CPU time divided by its threads; of the rest of the run as large a part is taken away as training
    waited for its core.
    """
    training = record.training
    if training is None or training.cpu_seconds is None or training.waited_share is None:
        return None
    begun, ended = map(datetime.fromisoformat, (record.started_utc, record.finished_utc))
    rest = max(0.0, (ended - begun).total_seconds() - training.seconds) * (1 - min(training.waited_share, 1.0))
    seconds = training.cpu_seconds / record.machine.threads
    return record.model_copy(
        update={
            "training": training.model_copy(update={"seconds": seconds}),
            "finished_utc": (begun + timedelta(seconds=seconds + rest)).isoformat(),
        }
    )


def whole(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Runs that ended as planned, in one go."""
    return [
        one for one in records if one.status == "finished" and one.steps and one.training and not one.training.resumed
    ]


def report(title: str, later: Sequence[Later]) -> float | None:
    """Prints what was predicted and taken; returns by how much the total is off, None where nothing was run twice."""
    kinds = {one.kind for one in later}
    if not later:
        print(f"{title}: no kind of runs was done twice on one machine")
        return None
    predicted, taken = sum(one.predicted for one in later), sum(one.taken for one in later)
    off = predicted / taken - 1
    worst = max(later, key=lambda one: abs(one.off_by))
    print(
        f"{title}: {len(later)} later runs of {len(kinds)} kinds: predicted {predicted:,.0f} s, taken {taken:,.0f} s, "
        f"{off:+.1%}; single runs {min(one.off_by for one in later):+.0%} to {max(one.off_by for one in later):+.0%} "
        f"(the worst: {worst.run_id})"
    )
    return off


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    runs = whole(record for _, record in read_all(parser.parse_args().results)[0])
    report("wall clock", later_runs(runs))
    off = report("CPU time", later_runs(filter(None, map(in_cpu_time, runs))))
    return int(off is None or abs(off) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
