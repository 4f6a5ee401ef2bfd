"""Tables: what is averaged and what never is, by hand-computed cases; and mistakes in descriptions."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_bench.errors import UserError
from ssl_bench.records.record import RunRecord
from ssl_bench.tables.cells import statistic
from ssl_bench.tables.description import Column, TableDescription
from ssl_bench.tables.fold import fold, letter
from ssl_bench.tables.loading import built_in_tables, load_table, parse_description
from ssl_bench.tables.render import cell_text, to_csv, to_markdown
from ssl_bench.tables.table import Cell, Row, Statistic, Table
from tests.example_records import KNN, evaluation, evaluations, make_record, measured

CIFAR = {"name": "cifar10", "fingerprint": "beef" * 8, "synthetic": False, "train_images": 50_000}


def comparison(*records: RunRecord) -> Table:
    source = load_table("comparison")
    return fold(source.description, records, source.published)


def rows(table: Table) -> list[Row]:
    return [row for block in table.blocks for row in block.rows]


def the_row(table: Table) -> Row:
    (row,) = rows(table)
    return row


def cell(table: Table, row: Row, column: str) -> Cell:
    return row.cells[[c.id for c in table.description.column].index(column)]


def csv_rows(table: Table, kind: str = "measured") -> list[dict[str, str]]:
    return [row for row in csv.DictReader(io.StringIO(to_csv(table))) if row["kind"] == kind]


def describe(**changes: Any) -> TableDescription:
    values: dict[str, Any] = {
        "id": "small",
        "title": "Small",
        "row": [{"id": "method", "from": "method"}],
        "column": [{"id": "knn", "title": "k-NN", "from": "measurement:knn.primary:trained", "unit": "%"}],
    }
    return TableDescription.model_validate(values | changes)


def test_a_column_that_nothing_measured_says_so() -> None:
    """Only where no run at all was evaluated by its evaluator: a cell alone may be empty."""

    def notes(*records: RunRecord) -> list[str]:
        return [note for block in comparison(*records).blocks for note in block.notes if "empty" in note]

    without = [make_record(linear=None), make_record("byol", linear=None)]
    assert notes(*without) == [
        "linear: empty, since these runs were evaluated by knn on shapes (synthetic), not by linear-probe. To add it: "
        "sslbench eval RUN --with linear-probe"
    ]
    assert not notes(*without, make_record("simclr"))
    assert not notes(make_record(linear=None, status="failed"))


# numbers


def test_mean_spread_and_n_over_seeds_by_hand() -> None:
    pairs = [(30.0, 40.0), (31.0, 42.0), (32.0, 47.0)]
    table = comparison(*(make_record(seed=seed, knn=pair) for seed, pair in enumerate(pairs)))
    row = the_row(table)
    assert row.finished == 3
    value, before = cell(table, row, "knn").value, cell(table, row, "knn").baseline
    # mean 43, deviations -3, -1, 4: sum of squares 26, over n - 1 = 2
    assert value == Statistic(43.0, math.sqrt(13.0), 3)
    assert before == Statistic(31.0, 1.0, 3)
    assert "31.0 → 43.0±3.6" in to_markdown(table)
    (line,) = csv_rows(table)
    assert float(line["knn_mean"]) == 43.0
    assert float(line["knn_std"]) == math.sqrt(13.0)
    assert line["knn_n"] == "3"
    assert float(line["knn_untrained_mean"]) == 31.0
    assert line["knn_protocol"] == KNN
    assert line["runs"].split() == sorted(f"dino-deit_s16-shapes-s{seed}-1024" for seed in range(3))


def test_one_seed_has_no_spread() -> None:
    table = comparison(make_record(knn=(30.0, 40.0)))
    assert cell(table, the_row(table), "knn").value == Statistic(40.0, None, 1)
    assert "30.0 → 40.0 " in to_markdown(table)
    assert csv_rows(table)[0]["knn_std"] == ""


def test_parameters_in_millions_and_images_per_second() -> None:
    (line,) = csv_rows(comparison(make_record()))
    assert float(line["params_mean"]) == pytest.approx(21.665664)
    assert line["params_unit"] == "M"
    assert float(line["inference_mean"]) == 503.0
    assert "128 images of 32 px per forward pass" in line["inference_protocol"]


def test_a_rate_without_evidence_that_the_machine_was_quiet_is_left_out() -> None:
    old = make_record(seed=0, backbone={"inference_cpu_share": None, "inference_images_per_second": 9000.0})
    busy = make_record("byol", backbone={"inference_images_per_second": None, "inference_note": "left out"})
    table = comparison(old, busy)
    assert [cell(table, row, "inference") for row in rows(table)] == [Cell(), Cell()]
    assert "im/s" not in to_markdown(table, published_lists=False).partition("| method")[2].partition("\n\n")[0]
    table = comparison(old, make_record(seed=1))
    assert cell(table, the_row(table), "inference").value == Statistic(503.0, None, 1)
    assert "9,000" not in to_markdown(table)


def test_one_thread_is_not_one_threads() -> None:
    record = make_record(training={"epochs": 1})
    machine = record.machine.model_copy(update={"threads": 1})
    text = to_markdown(comparison(record.model_copy(update={"machine": machine})))
    assert ", 1 thread\n" in text
    assert ", 1 epoch," in text
    assert ", 2 threads\n" in to_markdown(comparison(record))


def test_what_was_not_measured_is_empty_and_a_part_measured_says_its_n() -> None:
    table = comparison(make_record(seed=0, linear=None), make_record(seed=1, linear=(35.0, 50.0)))
    row = the_row(table)
    assert row.finished == 2
    assert "35.0 → 50.0 (n 1)" in to_markdown(table)
    table = comparison(make_record(linear=None))
    assert cell(table, the_row(table), "linear") == Cell()
    (line,) = csv_rows(table)
    assert line["linear_mean"] == line["linear_n"] == line["linear_protocol"] == ""


def test_only_the_untrained_network_was_measured() -> None:
    table = comparison(make_record(evaluations=(evaluation("knn", "untrained", measured(30.0)),)))
    assert "30.0 → –" in to_markdown(table)
    assert csv_rows(table)[0]["knn_mean"] == ""


def test_a_run_of_no_steps_shows_its_untrained_network_as_the_value() -> None:
    untrained = (evaluation("knn", "untrained", measured(31.5)),)
    trained = make_record("random", evaluations=untrained)
    record = trained.model_copy(update={"training": trained.training.model_copy(update={"steps": 0})})
    table = comparison(record)
    shown = cell(table, the_row(table), "knn")
    assert shown.value == Statistic(31.5, None, 1)
    assert shown.baseline is None


def test_a_value_that_is_not_finite_is_a_word() -> None:
    table = comparison(make_record(knn=(30.0, math.nan)))
    assert cell(table, the_row(table), "knn").word == "not finite"
    assert "nan" not in csv_rows(table)[0]["knn_mean"]


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8), st.randoms())
def test_a_statistic_does_not_depend_on_the_order(values: list[float], random: Any) -> None:
    shuffled = values.copy()
    random.shuffle(shuffled)
    found = statistic(values)
    assert found == statistic(shuffled)
    assert found.mean == pytest.approx(sum(values) / len(values), abs=1e-6)


# what is never averaged together


def test_a_repeated_seed_counts_once_and_the_later_run_stands() -> None:
    earlier = make_record(run_id="first", knn=(30.0, 10.0), finished_utc="2026-01-01T00:00:00Z")
    later = make_record(run_id="second", knn=(30.0, 40.0), finished_utc="2026-01-02T00:00:00Z")
    table = comparison(later, earlier)
    assert cell(table, the_row(table), "knn").value == Statistic(40.0, None, 1)
    assert any("first" in note for note in table.blocks[0].notes)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"settings": {"out_dim": 4096}}, "method.out_dim=4096"),
        ({"training": {"epochs": 100}}, "100 epochs"),
        ({"preset": "paper"}, "preset paper"),
    ],
)
def test_other_recipes_are_other_rows_and_say_in_what(changes: dict[str, Any], shown: str) -> None:
    table = comparison(make_record(seed=0), make_record(seed=1, **changes))
    assert [row.finished for row in rows(table)] == [1, 1]
    assert any(shown in row.settings for row in rows(table))
    assert rows(table)[0].settings != rows(table)[1].settings


def test_rows_that_differ_in_much_name_it_all() -> None:
    many = {f"setting_{i}": 1 for i in range(9)}
    table = comparison(make_record(seed=0), make_record(seed=1, settings=many))
    assert all(f"method.setting_{i}=" in row.settings for row in rows(table) for i in range(9))


def test_what_all_rows_share_stands_in_the_heading() -> None:
    table = comparison(make_record())
    assert table.blocks[0].heading == (
        "shapes (synthetic): 4,000 training and 1,000 test images, 10 classes, "
        "preset small-data, 12 epochs, 32 px, trained in fp32"
    )
    assert the_row(table).settings == ""


def test_other_data_of_one_name_stand_in_blocks_of_their_own_with_the_fingerprint() -> None:
    other = {"fingerprint": "cafe" * 8}
    table = comparison(make_record(seed=0), make_record(seed=1, data=other))
    assert [row.finished for row in rows(table)] == [1, 1]
    assert "fingerprint cafecafe" in table.blocks[0].heading
    assert "fingerprint f00df00d" in table.blocks[1].heading


def test_other_data_are_not_averaged_in_one_block_either() -> None:
    first = make_record(seed=0)
    other = make_record(seed=1, data={"fingerprint": "cafe" * 8}, recipe=first.recipe)
    table = fold(describe(data="column"), [first, other])
    assert [row.settings[:21] for row in rows(table)] == ["data.fingerprint=cafe", "data.fingerprint=f00d"]


def test_two_distributions_methods_of_one_name_are_two_rows_two_versions_a_footnote() -> None:
    table = comparison(make_record(seed=0), make_record(seed=1, method_plugin="other-dino 1.0"))
    assert [row.finished for row in rows(table)] == [1, 1]
    table = comparison(make_record(seed=0), make_record(seed=1, method_plugin="sslbench 0.2.0"))
    assert the_row(table).finished == 2
    assert any("sslbench 0.1.0, sslbench 0.2.0" in note for note in table.blocks[0].notes)


def test_speeds_of_two_machines_are_not_averaged() -> None:
    first = make_record(seed=0)
    machine = first.machine.model_copy(update={"device": "cuda", "threads": 16})
    table = comparison(first, make_record(seed=1, machine=machine, backbone={"inference_images_per_second": 9000.0}))
    found = [cell(table, row, "inference").value for row in rows(table)]
    assert sorted(value.mean for value in found if value) == [503.0, 9000.0]
    assert cell(table, rows(table)[0], "knn").value == Statistic(40.0, 0.0, 2)


# protocols


def test_one_protocol_is_a_note_without_a_mark() -> None:
    table = comparison(make_record(), make_record("byol"))
    assert f"k-NN: {KNN}" in table.blocks[0].notes
    assert all(cell.mark == "" for row in rows(table) for cell in row.cells)


def test_differing_protocols_are_marked_and_listed() -> None:
    other = evaluations((30.0, 44.0), None, protocol="200-NN, euclidean")
    table = comparison(make_record("byol"), make_record("dino", evaluations=other))
    assert [cell(table, row, "knn").mark for row in rows(table)] == ["a", "b"]
    assert f"[a] k-NN: {KNN}" in table.blocks[0].notes
    assert "[b] k-NN: 200-NN, euclidean" in table.blocks[0].notes
    assert "44.0 [b]" in to_markdown(table)


def test_protocols_within_one_row_are_lines_of_their_own() -> None:
    """Two seeds by the run's own k-NN, one of them evaluated again with another k: three values, never one mean."""
    again = evaluations((31.0, 60.0), None, protocol="10-NN", made_utc="2026-02-01T00:00:00Z")
    first, second = make_record(seed=0, knn=(30.0, 40.0)), make_record(seed=1, knn=(30.0, 42.0))
    table = comparison(first.model_copy(update={"evaluations": first.evaluations + again}), second)
    upper, lower = rows(table)
    assert cell(table, upper, "knn").value == Statistic(41.0, math.sqrt(2.0), 2)
    assert cell(table, lower, "knn").value == Statistic(60.0, None, 1)
    assert cell(table, lower, "knn").baseline == Statistic(31.0, None, 1)
    assert cell(table, lower, "linear") == Cell()
    assert "(n 1) [b]" in to_markdown(table)
    assert {line["knn_protocol"] for line in csv_rows(table)} == {KNN, "10-NN"}


def test_of_two_evaluations_under_one_protocol_the_later_counts() -> None:
    record = make_record(knn=(30.0, 40.0))
    later = evaluations((30.0, 41.0), None, made_utc="2026-03-01T00:00:00Z")
    table = comparison(record.model_copy(update={"evaluations": later + record.evaluations}))
    assert cell(table, the_row(table), "knn").value == Statistic(41.0, None, 1)


def test_an_evaluation_on_other_data_enters_only_where_asked_for_and_is_named() -> None:
    elsewhere = evaluations((30.0, 90.0), None, data="birds", data_fingerprint="b1d5" * 8, synthetic=False)
    record = make_record(evaluations=elsewhere)
    assert the_row(fold(describe(), [record])).cells == (Cell(),)
    column = {
        "id": "knn", "title": "k-NN", "from": "measurement:knn.primary:trained", "unit": "%", "evaluated_on": "any",
    }  # fmt: skip
    table = fold(describe(column=[column]), [record])
    assert the_row(table).cells[0].value == Statistic(90.0, None, 1)
    assert table.blocks[0].notes == (f"k-NN: {KNN}; evaluated on birds, fingerprint b1d5b1d5",)


def test_numbers_of_different_data_never_share_a_line() -> None:
    """The second metric has its largest values elsewhere: sorted by itself, it would stand beside the wrong data."""
    places = (("ants", "a" * 32, 10.0, 80.0), ("bees", "b" * 32, 90.0, 20.0))
    record = make_record(
        evaluations=tuple(
            evaluation(
                "knn", "trained", measured(one, protocol=f"{name} of size"),
                measured(other, metric="copied", protocol="z" if name == "ants" else "a", primary=False),
                data=name, data_fingerprint=digest, synthetic=False,
            )
            for name, digest, one, other in places
        )
    )  # fmt: skip
    columns = [
        {"id": metric, "title": metric, "from": f"measurement:knn.{metric}:trained", "unit": "%", "evaluated_on": "any"}
        for metric in ("top1_k20", "copied")
    ]
    table = fold(describe(column=columns), [record])
    shown = [(row.evaluated_on.name, *(one.value.mean for one in row.cells if one.value)) for row in rows(table)]
    assert shown == [("ants", 10.0, 80.0), ("bees", 90.0, 20.0)]


def test_another_unit_is_another_protocol() -> None:
    fraction = evaluation("knn", "trained", measured(0.4, unit="fraction"))
    table = comparison(make_record(seed=0), make_record(seed=1, evaluations=(fraction,)))
    assert [cell(table, row, "knn").value for row in rows(table)] == [Statistic(40.0, None, 1), Statistic(0.4, None, 1)]
    assert any("[in fraction]" in note for note in table.blocks[0].notes)


def test_letters_go_on_after_z() -> None:
    assert [letter(number) for number in (0, 25, 26, 27, 52)] == ["a", "z", "aa", "ab", "ba"]


# runs that did not end well


@pytest.mark.parametrize("status", ["collapsed", "failed"])
def test_a_run_that_did_not_finish_stands_as_that_word(status: str) -> None:
    table = comparison(make_record(status=status, knn=(30.0, 10.0)))
    row = the_row(table)
    assert cell(table, row, "knn").word == cell(table, row, "linear").word == status
    assert cell(table, row, "params").value is not None
    text = to_markdown(table)
    assert f"1 {status}" in text
    assert "10.0" not in text.replace("test images, 10 classes", "")
    (line,) = csv_rows(table)
    assert (line["finished"], line[status], line["knn_mean"]) == ("0", "1", "")


def test_a_collapsed_seed_enters_no_mean_and_is_counted() -> None:
    table = comparison(make_record(seed=0, knn=(30.0, 40.0)), make_record(seed=1, knn=(30.0, 1.0), status="collapsed"))
    row = the_row(table)
    assert (row.finished, row.collapsed) == (1, 1)
    assert cell(table, row, "knn").value == Statistic(40.0, None, 1)
    assert "1, 1 collapsed" in to_markdown(table)


# data and published figures


def test_synthetic_says_so_and_real_data_do_not() -> None:
    table = comparison(make_record(), make_record(data=CIFAR))
    assert [block.heading.split(":")[0] for block in table.blocks] == ["cifar10", "shapes (synthetic)"]
    assert [(line["data"], line["synthetic"]) for line in csv_rows(table)] == [("cifar10", "false"), ("shapes", "true")]


def test_published_figures_stand_in_their_own_columns_and_name_their_data() -> None:
    table = comparison(make_record())
    text = to_markdown(table)
    header = next(line for line in text.splitlines() if line.startswith("| method"))
    assert header.rstrip(" |").endswith("published, ImageNet-1k")
    assert "k-NN 74.4, linear 77.1" in text
    assert any("not to be compared with figures on shapes (synthetic)" in note for note in table.blocks[0].notes)
    (line,) = csv_rows(table)
    assert line["published_knn_thesis"] == "74.4"
    assert line["published_knn_paper"] == "74.5"
    assert line["published_data"] == "ImageNet-1k"
    assert float(line["knn_mean"]) == 40.0


def test_on_the_very_data_the_note_does_not_forbid_the_comparison() -> None:
    imagenet = {"name": "imagenet", "fingerprint": "1000" * 8, "synthetic": False}
    (note,) = [note for note in comparison(make_record(data=imagenet)).blocks[0].notes if note.startswith("published")]
    assert "not to be compared" not in note


def test_a_method_without_a_published_row_has_an_empty_published_cell() -> None:
    table = comparison(make_record("own_method"), make_record("dino"))
    assert [any(row.published[0]) for row in rows(table)] == [True, False]


def test_every_published_row_is_listed_whether_measured_or_not() -> None:
    table = comparison()
    assert rows(table) == []
    printed = table.published[0].rows
    assert len(printed) == 25
    assert {"method": "barlow_twins", "knn_thesis": "", "knn_paper": "66.0"}.items() <= printed[4].items()
    dino = next(row for row in printed if (row["method"], row["arch"]) == ("dino", "deit_s16"))
    assert (dino["params_m"], dino["throughput_im_s_thesis"], dino["linear_thesis"]) == ("21", "503", "77.1")
    lines = csv_rows(table, "published")
    assert len(lines) == 25
    assert all(line["knn_mean"] == "" for line in lines)


def test_the_published_files_are_copies_of_print_without_rounding() -> None:
    row = next(row for row in load_table("comparison").published[0] if row["arch"] == "vit_b16")
    assert row["linear_thesis"] == "78.0"


# the fold is pure


@settings(max_examples=25, deadline=None)
@given(st.randoms())
def test_the_same_records_in_any_order_give_the_same_bytes(random: Any) -> None:
    again = evaluations((31.0, 60.0), None, protocol="10-NN")
    records = [
        *(make_record(seed=seed, knn=(30.1 + seed, 40.3 * (seed + 1))) for seed in range(3)),
        make_record(seed=0, knn=(1.0, 2.0), run_id="repeated"),
        make_record(seed=1, settings={"out_dim": 4096}),
        make_record(seed=0, data=CIFAR, status="collapsed"),
        make_record("byol", "resnet50", seed=3, evaluations=again),
        make_record("byol", "resnet50", seed=4, linear=None),
    ]
    expected = comparison(*records)
    shuffled = records.copy()
    random.shuffle(shuffled)
    found = comparison(*shuffled)
    assert to_markdown(found) == to_markdown(expected)
    assert to_csv(found) == to_csv(expected)


def test_rows_are_sorted_numbers_by_size() -> None:
    key = {"id": "batch", "from": "recipe.training.batch_size"}
    records = [make_record(training={"batch_size": size}) for size in (512, 8, 128)]
    assert [row.keys for row in rows(fold(describe(row=[key]), records))] == [("8",), ("128",), ("512",)]


# descriptions of other tables


def test_an_ablation_as_a_description_joins_on_words_for_values(tmp_path: Path) -> None:
    """Thesis Table 5.2 in outline: switches read from the recipe, shown and joined as yes and no."""
    (tmp_path / "components.toml").write_text(
        """
id = "my_components"
title = "Components"
data = "column"
filter = { method = ["dino", "byol"], "recipe.training.epochs" = 12 }
row = [
  { id = "method", from = "method" },
  { id = "multicrop", from = "recipe.method.settings.local_views", labels = { "0" = "no", "*" = "yes" } },
]
column = [{ id = "knn", title = "k-NN", unit = "%", from = "measurement:knn.top1_k20:trained" }]

[[published]]
file = "own.csv"
data = "ImageNet-1k"
source = "thesis Table 5.2"
join = { method = "method", multicrop = "multicrop" }
columns = [{ column = "knn", title = "k-NN %", beside = "k-NN" }]
"""
    )
    (tmp_path / "own.csv").write_text("method,multicrop,knn\ndino,yes,72.7\ndino,no,67.8\n")
    source = load_table(str(tmp_path / "components.toml"))
    records = [
        make_record("dino"),
        make_record("dino", settings={"local_views": 0}, knn=(30.0, 35.0), data=CIFAR),
        make_record("simclr"),
        make_record("dino", training={"epochs": 100}),
    ]
    table = fold(source.description, records, source.published)
    (block,) = table.blocks
    assert [row.keys for row in block.rows] == [("dino", "no", "cifar10"), ("dino", "yes", "shapes (synthetic)")]
    assert [row.published for row in block.rows] == [(("67.8",),), (("72.7",),)]
    assert any("cifar10, shapes (synthetic)" in note for note in block.notes)


def test_built_in_tables_are_named_with_their_titles() -> None:
    assert "k-NN" in built_in_tables()["comparison"]


# mistakes in descriptions

GOOD = """
id = "mine"
title = "Mine"
row = [{ id = "method", from = "method" }]
column = [{ id = "knn", title = "k-NN", from = "measurement:knn.primary:trained" }]
"""
PUBLISHED = '[[published]]\nfile = "comparison.csv"\ndata = "D"\nsource = "S"\njoin = { method = "method" }\n'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title = ", "titel = ", r"'titel' is not a key of a table description\. Did you mean 'title'\?"),
        ("from = ", "form = ", r"'row\.1\.form' is not a key.*Did you mean 'from'\?"),
        ("row = [", "row = [[", "not TOML"),
        ('from = "method"', 'from = "methud"', r"row 'method': a record has no 'methud'\. Did you mean 'method'\?"),
        ('from = "method"', 'from = "backbone.nmae"', r"no 'backbone\.nmae'\. Did you mean 'name'\?"),
        ('from = "method"', 'from = "backbone"', "'backbone' is a part, not a value. It has: .*name"),
        ('from = "method"', 'from = "method.name"', "'method' is a value, it has no 'name'"),
        ("knn.primary:trained", "knn:trained", "must read measurement:EVALUATOR.METRIC:SUBJECT"),
        ("knn.primary:trained", "knn.primary:traind", "SUBJECT trained or untrained"),
        ('"k-NN", ', '"k-NN", baseline = "measurement:linear-probe.primary:untrained", ', "same evaluator and metric"),
        ('id = "knn"', 'id = "method"', "id 'method' is used twice"),
        ('title = "Mine"', 'title = "Mine"\norder_by = ["methods"]', r"no row id\. Did you mean 'method'\?"),
        ('title = "Mine"', 'title = "Mine"\nfilter = { "data.nam" = 1 }', r"filter: a record has no 'data\.nam'"),
        ('id = "mine"', 'id = "../mine"', "'id' = '../mine'"),
        ('title = "k-NN"', 'title = "k-NN", decimals = -1', r"'column\.1\.decimals' = -1"),
        ('title = "Mine"\n', "", "'title' is missing"),
    ],
)
def test_a_mistake_is_answered_with_file_place_and_nearest_match(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(UserError, match=said) as caught:
        parse_description(GOOD.replace(old, new, 1), "mine.toml")
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("published", "said"),
    [
        (PUBLISHED.replace("comparison.csv", "comparsion.csv"), r"Did you mean 'comparison\.csv'\?"),
        (PUBLISHED + 'columns = [{ column = "knn_thesys", title = "k" }]', r"Did you mean 'knn_thesis'\?"),
        (PUBLISHED + 'columns = [{ column = "knn_thesis", title = "k" }]', "more than one row with method = "),
        (PUBLISHED.replace("{ method", "{ methods") + "columns = []", r"no row id\. Did you mean 'method'\?"),
    ],
)
def test_a_mistake_about_published_figures(tmp_path: Path, published: str, said: str) -> None:
    if "columns" not in published:
        published += "columns = []"
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + published)
    with pytest.raises(UserError, match=said):
        load_table(str(path))


def test_included_keys_come_first_and_a_key_of_the_same_id_replaces_one() -> None:
    text = (
        GOOD
        + """
include = ["included/run_settings.toml"]
distinguish = [
  { id = "seed", from = "recipe.seed" }, { id = "image_px", from = "data.image_px", show = "trained at {} px" }
]
"""
    )
    keys = parse_description(text, "mine.toml").distinguish
    assert [key.id for key in keys][:3] == ["weights", "features", "preset"]
    assert [key.id for key in keys][-2:] == ["precision", "seed"]
    assert [key.show for key in keys if key.id == "image_px"] == ["trained at {} px"]


def test_a_mistake_about_an_included_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + 'include = ["included/run_setting.toml"]')
    with pytest.raises(UserError, match=r"Did you mean 'included/run_settings\.toml'\?"):
        load_table(str(path))
    path.write_text(GOOD + 'include = ["keys.toml"]')
    (tmp_path / "keys.toml").write_text('[[distinguish]]\nid = "a"\nform = "method"\n')
    with pytest.raises(UserError, match=r"keys\.toml: 'distinguish\.1\.form' is not a key.*Did you mean 'from'"):
        load_table(str(path))


def test_unknown_table_missing_file_and_binary_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no table is called 'comparision'\. Did you mean 'comparison'\?"):
        load_table("comparision")
    with pytest.raises(UserError, match=r"cannot read the table description .*none\.toml"):
        load_table(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        load_table(str(tmp_path / "binary.toml"))


# writing


def test_a_text_cannot_break_out_of_its_cell() -> None:
    text = to_markdown(fold(describe(), [make_record("evil | method\nnext")]))
    line = next(line for line in text.splitlines() if "evil" in line)
    assert r"evil \| method next" in line


@pytest.mark.parametrize(
    ("cell", "finished", "text"),
    [
        (Cell(), 1, ""),
        (Cell(word="collapsed"), 1, "collapsed"),
        (Cell(value=Statistic(1234.56, None, 1)), 1, "1,234.6"),
        (Cell(value=Statistic(41.25, 0.5, 2), baseline=Statistic(30.0, 1.0, 2)), 2, "30.0 → 41.2±0.5"),
        (Cell(value=Statistic(41.25, 0.5, 2), baseline=Statistic(30.0, 1.0, 2)), 3, "30.0 → 41.2±0.5 (n 2)"),
        (Cell(value=Statistic(41.25, 0.5, 2), mark="a"), 3, "41.2±0.5 (n 2) [a]"),
    ],
)
def test_cells_in_words(cell: Cell, finished: int, text: str) -> None:
    column = Column.model_validate({"id": "x", "title": "x", "from": "measurement:knn.primary:trained"})
    assert cell_text(column, cell, finished) == text


def test_records_that_an_edit_would_not_show_in_are_counted() -> None:
    records = [make_record(seed=seed) for seed in range(3)]
    first = [one.model_copy(update={"schema_version": 1}) for one in records[:2]]
    said = "records without a fingerprint, whose edit by hand would not be noticed: 2 of 3"
    source = load_table("comparison")
    for these, expected in ((records, False), ([*first, records[2]], True)):
        (block,) = fold(source.description, these, source.published).blocks
        assert (said in block.notes) == expected
