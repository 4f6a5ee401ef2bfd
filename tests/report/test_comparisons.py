"""Which orders hold: against differences worked out by hand, and against the paired bootstrap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_bench.measurement import Outcomes, accuracy_of, newcombe_interval
from ssl_bench.records.bootstrap import paired_interval
from ssl_bench.records.outcomes import OutcomesOfRuns, write_outcomes
from ssl_bench.records.record import RunRecord
from ssl_bench.registry.preset_files import presets_of
from ssl_bench.report.comparisons import Comparison, comparisons
from ssl_bench.report.findings import TableFindings, at_a_glance, findings_of
from ssl_bench.tables.fold import fold
from ssl_bench.tables.loading import load_table, parse_description
from ssl_bench.tables.table import Table
from tests.example_records import KNN, evaluation, make_record, with_reach

NO_OUTCOMES = OutcomesOfRuns({})


def compared(table: Table) -> list[Comparison]:
    return [one for block in table.blocks for one in comparisons(table, block, NO_OUTCOMES)]


def comparison_table(*records: RunRecord) -> Table:
    source = load_table("comparison")
    return fold(source.description, records, source.published)


def run(method: str, before: float, after: float, *, reach: float = 2.0, **changes: object) -> RunRecord:
    return with_reach(make_record(method, knn=(before, after), linear=None, **changes), reach)  # type: ignore[arg-type]


def test_each_row_is_compared_with_the_best_one_by_newcombes_interval() -> None:
    (one,) = compared(comparison_table(run("dino", 30, 50), run("byol", 30, 49), run("swav", 30, 40)))
    (ranking,) = one.rankings
    assert ranking.best == "dino"
    assert [(lead.name, lead.amount, lead.verdict) for lead in ranking.over] == [
        ("byol", 1.0, "level"),
        ("swav", 10.0, "better"),
    ]
    ends = ranking.over[1].ends
    assert ends is not None
    assert ends[:2] == pytest.approx(newcombe_interval(40, (38, 42), 50, (48, 52)))
    assert not ends.paired


def test_training_is_compared_with_the_network_before_it() -> None:
    (one,) = compared(comparison_table(run("dino", 30, 50), run("byol", 30, 31), run("swav", 30, 20)))
    (gains,) = one.gains
    assert gains.start == "untrained"
    assert {lead.name: lead.verdict for lead in gains.rows} == {"dino": "better", "byol": "level", "swav": "worse"}


def test_where_less_is_better_the_smallest_leads() -> None:
    def measured(method: str, value: float) -> RunRecord:
        record = run(method, 3.0, value, reach=0.1)
        made = tuple(
            one.model_copy(
                update={
                    "measurements": tuple(m.model_copy(update={"higher_is_better": False}) for m in one.measurements)
                }
            )
            for one in record.evaluations
        )
        return record.model_copy(update={"evaluations": made})

    (one,) = compared(comparison_table(measured("dino", 1.0), measured("byol", 2.0)))
    (ranking,) = one.rankings
    assert (ranking.best, ranking.over[0].amount, ranking.over[0].verdict) == ("dino", 1.0, "better")
    assert {lead.verdict for lead in one.gains[0].rows} == {"better"}


def test_rows_of_other_epochs_networks_or_protocols_are_not_compared() -> None:
    longer = run("byol", 30, 60, training={"epochs": 100})
    other_network = run("swav", 30, 60, arch="resnet18")
    other_protocol = make_record("simclr", knn=None, linear=None)
    (of_k1,) = (m for m in run("simclr", 30, 60).evaluations if m.subject == "trained")
    changed = tuple(m.model_copy(update={"protocol": "1-NN"}) for m in of_k1.measurements)
    other_protocol = other_protocol.model_copy(
        update={"evaluations": (of_k1.model_copy(update={"measurements": changed}),)}
    )
    found = compared(comparison_table(run("dino", 30, 50), longer, other_network, other_protocol))
    assert not [ranking for one in found for ranking in one.rankings]


def test_floor_and_ceiling_are_not_ranked() -> None:
    (one,) = compared(comparison_table(run("dino", 30, 50), run("byol", 30, 40), run("supervised", 30, 90)))
    assert one.rankings[0].best == "dino"
    assert [lead.name for lead in one.rankings[0].over] == ["byol"]


def test_outcomes_are_paired(tmp_path: Path) -> None:
    n = 400
    shared = np.random.default_rng(0).random(n) < 0.5
    better = shared.copy()
    better[np.flatnonzero(~shared)[:16]] = True  # 4 points, which unpaired intervals would not tell apart
    records, folders = [], {}
    for method, bits in (("dino", better), ("byol", shared)):
        record = make_record(method, knn=None, linear=None)
        one = accuracy_of("top1_k20", bits, protocol=KNN, primary=True)  # type: ignore[arg-type]
        folders[record.run_id] = tmp_path / method
        kept = write_outcomes(folders[record.run_id], "knn", [one])
        records.append(record.model_copy(update={"evaluations": (evaluation("knn", "trained", one, outcomes=kept),)}))
    source, outcomes = load_table("comparison"), OutcomesOfRuns(folders)
    table = fold(source.description, records, source.published, outcomes)
    ((one_comparison),) = comparisons(table, table.blocks[0], outcomes)
    (lead,) = one_comparison.rankings[0].over
    assert lead.verdict == "better"
    assert lead.ends is not None
    assert lead.ends.paired
    assert lead.ends[:2] == paired_interval([Outcomes.of(shared)], [Outcomes.of(better)])


def printed_order(*values: tuple[str, float]) -> TableFindings:
    source = load_table("teacher")
    names = {"momentum": "momentum", "previous_epoch": "previous_epoch", "student_copy": "student_copy"}
    records = [
        with_reach(
            make_record(
                arch="deit_ti16", knn=(24, value), linear=None, settings={"teacher": names[teacher]},
                changed_settings={"method.teacher": teacher} if teacher != "momentum" else {}, run_id=teacher,
            ),
            2.0,
        )
        for teacher, value in values
    ]  # fmt: skip
    return findings_of(fold(source.description, records, source.published), NO_OUTCOMES)


def test_printed_orders_are_reproduced_reversed_or_open() -> None:
    # printed, thesis Fig. 5.9: momentum 72.7, previous epoch 66.5, student copy 0.1
    found = printed_order(("momentum", 50.0), ("previous_epoch", 51.0), ("student_copy", 60.0))
    (order,) = found.blocks[0].groups[0].orders
    assert {(line[0], line[1]): line[4] for line in order.lines} == {
        ("momentum", "student copy"): "reversed",
        ("previous epoch", "student copy"): "reversed",
        ("momentum", "previous epoch"): "not told apart",
    }
    assert order.summary == "printed order of 3 pairs: 2 reversed, 1 not told apart"
    (order,) = printed_order(("momentum", 50.0), ("student_copy", 10.0)).blocks[0].groups[0].orders
    assert order.lines == (("momentum", "student copy", "72.7 and 0.10", "+40.0 (+37.2 to +42.8)", "reproduced"),)


def test_what_two_tables_show_counts_once() -> None:
    table = comparison_table(run("dino", 30, 50), run("byol", 30, 40))
    once = findings_of(table, NO_OUTCOMES)
    assert at_a_glance([once, once]) == at_a_glance([once])
    assert at_a_glance([once])[0].startswith("Comparisons with the best row of a column: 1 holds beyond")


def test_collapsed_runs_and_numbers_without_intervals_are_said() -> None:
    collapsed = make_record("simclr", knn=None, linear=None, status="collapsed")
    table = comparison_table(
        make_record("dino", linear=None), make_record("byol", linear=None, knn=(30, 45)), collapsed
    )
    (block,) = findings_of(table, NO_OUTCOMES).blocks
    assert block.ended == ("simclr, deit_s16: 1 collapsed of 1 run",)
    assert block.groups[0].statements[0].text == "the numbers have no intervals, so no order is stated."


def test_no_row_id_or_column_that_is_not_there_is_named() -> None:
    text = (
        'id = "own"\ntitle = "Own"\ncompare_within = ["archh"]\n'
        '[[row]]\nid = "arch"\nfrom = "backbone.name"\n'
        '[[column]]\nid = "knn"\ntitle = "k-NN"\nfrom = "measurement:knn.primary:trained"\n'
    )
    with pytest.raises(ValueError, match=r"compare_within names 'archh'.* Did you mean 'arch'"):
        parse_description(text, "own.toml")
    published = (
        '[[published]]\nfile = "comparison.csv"\ndata = "X"\nsource = "Y"\njoin = { arch = "arch" }\n'
        'columns = [{ column = "knn_thesis", title = "k-NN", prints = "kn" }]\n'
    )
    with pytest.raises(ValueError, match=r"prints of knn_thesis in comparison\.csv names 'kn'"):
        parse_description(text.replace("archh", "arch") + published, "own.toml")


def test_a_small_network_is_compared_with_the_printed_values_of_the_one_it_stands_for() -> None:
    # laptop size: deit_ti16 of four blocks for deit_s16; thesis Table 5.1: dino 74.4, byol 66.7, mocov2 64.5
    def small(method: str, value: float, **changes: Any) -> RunRecord:
        record = run(method, 24, value, arch="deit_ti16", changed_settings={"backbone.depth": 4, **changes})
        recipe = dict(record.recipe)
        recipe["backbone"] = {"name": "deit_ti16", "settings": {"depth": 4}}
        return record.model_copy(update={"recipe": recipe})

    table = comparison_table(small("dino", 40), small("byol", 60), small("mocov2", 60.5))
    (order,) = findings_of(table, NO_OUTCOMES).blocks[0].groups[0].orders
    assert order.about == "k-NN %, thesis, printed for deit_s16, ImageNet-1k"
    assert {line[:3] + line[4:] for line in order.lines} == {
        ("dino", "byol", "74.4 and 66.7", "reversed"),
        ("dino", "mocov2", "74.4 and 64.5", "reversed"),
        ("byol", "mocov2", "66.7 and 64.5", "not told apart"),
    }
    ablated = comparison_table(small("dino", 40), small("byol", 60, **{"method.predictor": True}))
    assert not findings_of(ablated, NO_OUTCOMES).blocks[0].groups[0].orders
    # set by hand to what the preset of today says anyway: the method itself
    preset = presets_of("byol")
    assert preset is not None
    momentum = preset.values("small-data", "vit")["method.target_momentum"]
    by_hand = small("byol", 60, **{"method.target_momentum": momentum})
    method = by_hand.recipe["method"]
    settings = method["settings"] | {"target_momentum": momentum}
    by_hand = by_hand.model_copy(update={"recipe": by_hand.recipe | {"method": method | {"settings": settings}}})
    (order,) = findings_of(comparison_table(small("dino", 40), by_hand), NO_OUTCOMES).blocks[0].groups[0].orders
    assert [line[:2] for line in order.lines] == [("dino", "byol")]
