"""Intervals of cells and the mark of the best, from outcomes beside the records and from records alone."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ssl_bench.cli.table import show_tables
from ssl_bench.measurement import Protocol, accuracy_of, wilson_interval
from ssl_bench.records.bootstrap import mean_interval, paired_interval, seeds_interval
from ssl_bench.records.outcomes import OutcomesOfRuns, write_outcomes
from ssl_bench.records.record import RunRecord, write_record
from ssl_bench.tables.fold import fold
from ssl_bench.tables.loading import load_table
from ssl_bench.tables.plain import to_plain
from ssl_bench.tables.render import to_csv, to_markdown
from ssl_bench.tables.table import Cell, Row, Table
from tests.conftest import Command
from tests.example_records import evaluation, make_record

N = 1000
Bits = NDArray[np.bool_]


def right(share: float, seed: int = 0, n: int = N) -> Bits:
    return np.random.default_rng(seed).random(n) < share


class Runs:
    """Records with outcomes in run folders below a results folder."""

    def __init__(self, results: Path) -> None:
        self.results, self.records = results, list[RunRecord]()

    def add(self, method: str, bits: Bits, seed: int = 0, *, outcomes: bool = True, **changes: Any) -> None:
        measured = accuracy_of("top1_k20", bits, protocol=Protocol(text="20-NN"), primary=True)
        run_id = f"{method}-{seed}"
        folder = self.results / "runs" / run_id
        kept = write_outcomes(folder, "evaluations/knn-trained", [measured]) if outcomes else None
        recorded = measured.model_copy(update={"outcomes": None})
        (made,) = (evaluation("knn", "trained", recorded),)
        record = make_record(method, seed=seed, run_id=run_id, **changes)
        made = made.model_copy(update={"outcomes": kept})
        record = record.model_copy(update={"evaluations": (made,)})
        write_record(record, folder / "record.json")
        self.records.append(record)

    def table(self) -> Table:
        source = load_table("comparison")
        outcomes = OutcomesOfRuns({one.run_id: self.results / "runs" / one.run_id for one in self.records})
        return fold(source.description, self.records, source.published, outcomes)

    def row(self, method: str) -> Row:
        return next(row for block in self.table().blocks for row in block.rows if row.keys[0] == method)

    def cell(self, method: str) -> Cell:
        return self.row(method).cells[[c.id for c in load_table("comparison").description.column].index("knn")]

    def best(self) -> set[str]:
        found = (row for block in self.table().blocks for row in block.rows)
        return {row.keys[0] for row in found if any(cell.best for cell in row.cells)}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "results")


def test_one_seed_has_its_own_interval(runs: Runs) -> None:
    bits = right(0.4)
    runs.add("dino", bits)
    found = runs.cell("dino")
    assert found.interval is not None
    assert found.interval[:2] == wilson_interval(int(bits.sum()), N)
    assert found.interval.how == "one seed"
    assert found.items == N


def test_several_seeds_with_outcomes_are_drawn_again_together(runs: Runs) -> None:
    values = [accuracy_of("m", right(0.4, seed), protocol=Protocol(text="p")) for seed in range(3)]
    for seed, one in enumerate(values):
        runs.add("dino", one.outcomes.values, seed)
    found = runs.cell("dino")
    assert found.interval is not None
    assert found.interval[:2] == mean_interval([one.outcomes for one in values])
    assert found.interval.how == "bootstrap"
    assert found.value.n == 3


def test_without_all_outcomes_the_intervals_of_the_records_count_and_the_table_says_so(runs: Runs) -> None:
    for seed in range(3):
        runs.add("dino", right(0.4, seed), seed, outcomes=seed > 0)
    found = runs.cell("dino")
    hits = [int(right(0.4, seed).sum()) for seed in range(3)]
    expected = seeds_interval([100 * one / N for one in hits], [wilson_interval(one, N) for one in hits])
    assert found.interval is not None
    assert found.interval[:2] == pytest.approx(expected)
    assert "of several seeds without outcomes beside their records" in to_markdown(runs.table())


def test_a_difference_that_only_pairing_tells_decides_the_mark(runs: Runs) -> None:
    """3 % more of the very same images right: beyond doubt item by item, within both intervals."""
    worse = right(0.5)
    better = worse | right(0.06, seed=1)
    assert 20 < int(better.sum()) - int(worse.sum()) < 45
    runs.add("dino", worse)
    runs.add("byol", better)
    one, other = (accuracy_of("m", bits, protocol=Protocol(text="p")).outcomes for bits in (worse, better))
    assert paired_interval([one], [other])[0] > 0
    assert runs.best() == {"byol"}
    for path in runs.results.rglob("*-outcomes.safetensors"):
        path.unlink()
    assert runs.best() == set(), "from the intervals alone nothing can be told apart"


def test_ties_are_marked_alike_and_none_where_all_are_ties(runs: Runs) -> None:
    runs.add("dino", right(0.60, 1))
    runs.add("byol", right(0.61, 2))
    assert runs.best() == set()
    runs.add("swav", right(0.40, 3))
    assert runs.best() == {"dino", "byol"}
    text = to_markdown(runs.table())
    assert text.count("**") == 4, "two cells in bold"
    assert (
        "- marked: the best of a column and all that the 95 % interval of their difference does not tell from it"
        in text
    )


def test_floor_and_ceiling_are_not_ranked(runs: Runs) -> None:
    runs.add("supervised", right(0.9, 1))
    runs.add("dino", right(0.6, 2))
    runs.add("byol", right(0.4, 3))
    assert runs.best() == {"dino"}
    assert "not ranked: random, supervised" in to_markdown(runs.table())


def test_chance_stands_below_accuracies(runs: Runs) -> None:
    runs.add("dino", right(0.6, 1), data={"classes": 8})
    assert "- chance: 12.5 % of top-1 (k-NN), guessing among 8 classes\n" in to_markdown(runs.table())
    runs.records[0] = runs.records[0].model_copy(update={"evaluations": ()})
    assert "chance" not in to_markdown(runs.table())


def test_a_rival_without_an_interval_leaves_all_unmarked(runs: Runs) -> None:
    runs.add("dino", right(0.6, 1))
    runs.add("byol", right(0.4, 2))
    assert runs.best() == {"dino"}
    unknown = runs.records[1].evaluations[0]
    bare = unknown.measurements[0].model_copy(update={"interval": None})
    changed = unknown.model_copy(update={"measurements": (bare,), "outcomes": None})
    runs.records[1] = runs.records[1].model_copy(update={"evaluations": (changed,)})
    assert runs.best() == set()


def test_csv_and_json_hold_the_ends_and_the_mark(runs: Runs, sslbench: Command) -> None:
    runs.add("dino", right(0.6, 1))
    runs.add("byol", right(0.4, 2))
    table = runs.table()
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(to_csv(table))) if row["kind"] == "measured"}
    low, high = wilson_interval(int(right(0.6, 1).sum()), N)
    row = rows["dino"]
    assert (float(row["knn_low"]), float(row["knn_high"])) == (low, high)
    assert (row["knn_items"], row["knn_best"], rows["byol"]["knn_best"]) == (str(N), "true", "false")
    assert "params_low" not in row
    found = {one["keys"]["method"]: one["cells"]["knn"] for one in to_plain(table)["blocks"][0]["rows"]}["dino"]
    assert (found["interval"], found["interval_of"], found["best"], found["items"]) == (
        [low, high],
        "one seed",
        True,
        N,
    )
    assert sslbench("table", "comparison", "--results", runs.results)[0] == 0
    assert (runs.results / "tables/comparison.csv").read_text() == to_csv(table), "the verb finds the outcomes"


def test_percentages_of_two_distant_seeds_stay_between_0_and_100(runs: Runs) -> None:
    for seed, share in enumerate((0.1, 0.9)):
        runs.add("dino", right(share, seed), seed)
    (row,) = to_plain(runs.table())["blocks"][0]["rows"]
    assert row["cells"]["knn"]["interval"] == [0.0, 100.0], "12.7 standard errors around 50 reach far beyond"


def test_old_records_of_accuracies_have_an_interval() -> None:
    old: dict[str, Any] = evaluation("knn", "trained").model_dump()
    measured = {"metric": "top1_k20", "value": 40.0, "unit": "%", "higher_is_better": True, "n": 1000, "protocol": "p"}
    old |= {"schema_version": 1, "measurements": [measured, measured | {"metric": "rankme", "unit": "dims"}]}
    read = type(evaluation("knn", "trained")).model_validate(old)
    assert [one.interval for one in read.measurements] == [wilson_interval(400, 1000), None]


def test_the_tables_that_bench_writes_are_those_that_the_check_expects(sslbench: Command, tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    for seed in range(2):
        runs.add("dino", right(0.5, seed), seed)
    show_tables([load_table("comparison")], tmp_path)
    assert sslbench("table", "--check", "--results", str(tmp_path))[0] == 0
