"""Rows that name what was trained on and what was evaluated on; and runs that started from weights."""

from __future__ import annotations

import csv
import io
from typing import Any

from ssl_bench.records.record import DataRecord, RunRecord
from ssl_bench.tables.fold import fold
from ssl_bench.tables.loading import load_table
from ssl_bench.tables.plain import to_plain
from ssl_bench.tables.render import block_grid, to_csv, to_markdown
from ssl_bench.tables.table import Block, Statistic, Table
from tests.example_records import evaluation, evaluations, make_record, measured, with_reach

PHOTOS = {
    "name": "photos", "fingerprint": "0f0f" * 8, "synthetic": False, "train_images": 12_480, "test_images": 0,
    "classes": 0,
}  # fmt: skip
BIRDS = DataRecord(
    name="birds", plugin="sslbench 0.1.0", fingerprint="b1d5" * 8, synthetic=False, train_images=900, test_images=300,
    classes=6, image_px=32,
)  # fmt: skip
FISH = BIRDS.model_copy(update={"name": "fish", "fingerprint": "f15b" * 8, "classes": 9})


def on(data: DataRecord, knn: tuple[float, float], linear: tuple[float, float] | None = None) -> Any:
    return evaluations(knn, linear, data=data.name, data_fingerprint=data.fingerprint, synthetic=data.synthetic)


def comparison(*records: RunRecord) -> Table:
    source = load_table("comparison")
    return fold(source.description, records, source.published)


def lines(table: Table, block: Block) -> list[dict[str, str]]:
    grid = block_grid(table, block)
    return [dict(zip(grid.header, row, strict=True)) for row in grid.rows]


def test_runs_on_different_training_data_compare_where_their_evaluation_data_are_one() -> None:
    table = comparison(
        with_reach(make_record(data=PHOTOS, eval_data=(BIRDS,), evaluations=on(BIRDS, (30.0, 50.0))), 1.0),
        with_reach(
            make_record(evaluations=on(BIRDS, (30.0, 45.0))), 1.0
        ),  # evaluated there later, by `sslbench eval --data`
    )
    (block,) = table.blocks
    assert block.heading.startswith("evaluated on birds: fitted on 900 images, 300 test images, 6 classes")
    shown = [(row["trained on"], row["k-NN %"]) for row in lines(table, block)]
    assert shown == [("photos", "30.0 → 50.0 (49.0 to 51.0)"), ("shapes (synthetic)", "30.0 → 45.0 (44.0 to 46.0)")]
    assert sum("evaluated on" in note for note in block.notes) == 0, "the heading says it"
    assert "[a]" not in to_markdown(table), "one protocol on one dataset: the numbers compare"
    marks = block_grid(table, block).marks
    assert [row for (row, _), mark in marks.items() if mark == "best"] == [0]
    sets = [(row["data"], row["evaluated_on"]) for row in csv.DictReader(io.StringIO(to_csv(table))) if row["data"]]
    assert sets == [("photos", "birds"), ("shapes", "birds")]


def test_a_run_stands_under_each_dataset_it_was_evaluated_on_and_seeds_are_averaged_in_each() -> None:
    records = [
        make_record(
            seed=seed, data=PHOTOS, eval_data=(BIRDS, FISH), evaluations=(*on(BIRDS, (30.0, 50.0 + seed)),
            *on(FISH, (20.0, 40.0 + 2 * seed), (25.0, 45.0))),
        )
        for seed in (0, 1)
    ]  # fmt: skip
    table = comparison(*records)
    assert [block.heading.split(":")[0] for block in table.blocks] == ["evaluated on birds", "evaluated on fish"]
    found = [[cell.value for cell in row.cells if cell.value] for block in table.blocks for row in block.rows]
    assert [[value.mean for value in row][-1] for row in found] == [50.5, 45.0]
    assert found[1][-2] == Statistic(41.0, 2.0**0.5, 2)
    document = to_plain(table)["blocks"][0]["rows"][0]
    assert (document["data"], document["evaluated_on"]) == ("photos", "birds")
    assert document["keys"] == {"method": "dino", "arch": "deit_s16"}


def test_one_seed_evaluated_on_further_data_is_told_from_a_seed_that_was_run_again() -> None:
    def run(run_id: str, *sets: DataRecord) -> RunRecord:
        found = tuple(one for data in sets for one in on(data, (30.0, 50.0)))
        at = f"2026-01-0{len(sets)}T00:00:00Z"
        return make_record(run_id=run_id, data=PHOTOS, eval_data=sets, evaluations=found, finished_utc=at)

    def notes(*runs: RunRecord) -> list[list[str]]:
        blocks = comparison(*runs).blocks
        return [[note for note in block.notes if "a seed was run again" in note] for block in blocks]

    (birds, fish) = notes(run("first", BIRDS), run("second", BIRDS, FISH))
    assert fish == []
    assert len(birds) == 1
    assert "run again to evaluate it on other data, the later run counts, not first (sslbench eval" in birds[0]
    assert notes(run("first", BIRDS), run("second", FISH)) == [[], []], "each stands alone under its heading"
    ((again,),) = notes(run("first", BIRDS), run("second", BIRDS).model_copy(update={"finished_utc": "2026-01-03"}))
    assert again.endswith("a seed was run again, the later run counts, not first")


def test_what_only_the_earlier_run_of_a_seed_was_evaluated_for_stands_beside_the_later_ones_numbers() -> None:
    first = make_record(run_id="first", evaluations=evaluations((30.0, 50.0), (35.0, 60.0)), finished_utc="2026-01-01")
    later = make_record(run_id="later", evaluations=evaluations((31.0, 52.0), None), finished_utc="2026-01-02")
    for records in ((first, later), (later, first)):
        ((row,),) = (block.rows for block in comparison(*records).blocks)
        values = {cell.value.mean for cell in row.cells if cell.value and cell.numbers and cell.numbers[0].evaluation}
        assert values == {52.0, 60.0}, "the later k-NN, the only linear probe"
        assert (row.runs, row.finished) == (("first", "later"), 1)
        (block,) = comparison(*records).blocks
        assert any(note.endswith("was not evaluated for is of first") for note in block.notes)
        assert not any("not first" in note for note in block.notes)
    failed = make_record(run_id="failed", status="failed", evaluations=(), finished_utc="2026-01-03")
    ((row,),) = (block.rows for block in comparison(first, failed).blocks)
    assert {cell.word for cell in row.cells if cell.word} == {"failed"}, "a run that failed hides nothing of itself"


def test_a_run_that_failed_stands_where_it_would_have_been_evaluated() -> None:
    table = comparison(
        make_record(data=PHOTOS, eval_data=(BIRDS,), evaluations=on(BIRDS, (30.0, 50.0))),
        make_record("byol", data=PHOTOS, eval_data=(BIRDS,), evaluations=(), status="failed"),
        make_record("swav", evaluations=()),
    )
    assert [[row.keys[0] for row in block.rows] for block in table.blocks] == [["byol", "dino"], ["swav"]]
    assert "trained on" not in lines(table, table.blocks[1])[0]


def test_a_run_on_its_own_data_reads_as_before() -> None:
    """What was trained and evaluated on one dataset needs no column for either, and its heading counts both splits."""
    table = comparison(make_record())
    (block,) = table.blocks
    assert block.heading.startswith("shapes (synthetic): 4,000 training and 1,000 test images, 10 classes")
    assert not {"trained on", "evaluated on"} & {*lines(table, block)[0]}


def test_a_run_from_weights_is_never_called_untrained() -> None:
    start = {"pretrained": "teacher, sha256 0f3a5c6d7e8f"}
    made = evaluations((60.0, 65.0), None)
    before = made[0].model_copy(update={"subject": "pretrained"})
    table = comparison(make_record(backbone=start, evaluations=(before, made[1])), make_record("byol"))
    (block,) = table.blocks
    (note,) = [note for note in block.notes if "started from" in note]
    assert note.startswith("dino on deit_s16")
    assert "teacher, sha256 0f3a5c6d7e8f" in note
    pretrained, untrained = (to_plain(table)["blocks"][0]["rows"][i]["cells"]["knn"] for i in (1, 0))
    assert pretrained["pretrained"]["mean"] == 60.0
    assert "untrained" not in pretrained
    assert untrained["untrained"]["mean"] == 30.0
    assert [row["start"] for row in csv.DictReader(io.StringIO(to_csv(table))) if row["data"]] == [
        "untrained", "pretrained",
    ]  # fmt: skip


def test_weights_that_were_not_trained_here_are_said_to_be_so() -> None:
    record = make_record(backbone={"pretrained": "teacher.pth"}, evaluations=evaluations((60.0, 0.0), None)[:1])
    record = record.model_copy(update={"training": record.training.model_copy(update={"steps": 0})})
    (block,) = comparison(record).blocks
    assert any("started from pretrained weights (teacher.pth), not trained here" in note for note in block.notes)


def test_what_was_measured_without_labels_has_a_table() -> None:
    measures = ("rankme", "effective_rank", "uniformity", "alignment", "feature_spread")
    made = [
        evaluation(
            "label-free", subject, *(measured(value, metric=name, unit=unit, primary=name == "rankme")
            for name, unit in zip(measures, ("dims", "dims", "nats", "1", "1"), strict=True)),
            data="photos", data_fingerprint=PHOTOS["fingerprint"], synthetic=False,
        )
        for subject, value in (("untrained", 1.5), ("trained", 2.5))
    ]  # fmt: skip
    source = load_table("label_free")
    table = fold(source.description, [make_record(data=PHOTOS, evaluations=tuple(made))], source.published)
    (block,) = table.blocks
    assert block.heading.startswith("photos: 12,480 training images, without labels")
    assert [cell.value and cell.value.mean for cell in block.rows[0].cells] == [2.5] * 5
    assert [cell.baseline and cell.baseline.mean for cell in block.rows[0].cells] == [1.5] * 5
