"""Tables whose rows are variants: which records fill them, what stands beside, and a row more by one stanza."""

from __future__ import annotations

import csv
import io
from functools import cache
from importlib.resources import files
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from ssl_bench.errors import UserError
from ssl_bench.records.record import RunRecord
from ssl_bench.tables.choosing import narrowed
from ssl_bench.tables.fold import fold
from ssl_bench.tables.loading import TableSource, built_in_tables, load_table
from ssl_bench.tables.render import to_csv, to_markdown
from ssl_bench.tables.table import Row, Table
from tests.example_records import make_record

SHARED = Path(__file__).parents[3] / "shared" / "published"
COMPONENTS = (files("ssl_bench_benchmarks.tables") / "components.toml").read_text("utf-8")


def run(seed: int = 0, method: str = "dino", **settings: Any) -> RunRecord:
    """A laptop run: 4 blocks of deit_ti16, with these settings of the method by hand."""
    changed = {f"method.{name}": value for name, value in settings.items()} | {"backbone.depth": 4}
    record = make_record(method, "deit_ti16", seed, settings=settings, changed_settings=changed)
    return with_recipe(record, "backbone", {"name": "deit_ti16", "settings": {"depth": 4}})


def with_recipe(record: RunRecord, section: str, content: dict[str, Any], **changed: Any) -> RunRecord:
    settings = {**(record.changed_settings or {}), **changed}
    return record.model_copy(update={"recipe": {**record.recipe, section: content}, "changed_settings": settings})


def longer(record: RunRecord) -> RunRecord:
    return with_recipe(record, "training", {**record.recipe["training"], "epochs": 50}, **{"training.epochs": 50})


def components(*records: RunRecord) -> Table:
    source = load_table("components")
    return fold(source.description, records, source.published)


def rows(table: Table) -> list[Row]:
    return [row for block in table.blocks for row in block.rows]


def words(table: Table) -> list[str]:
    return [" ".join(row.keys) for row in rows(table)]


BASE = "dino yes no yes ce no"
WITHOUT_CROPS = "dino yes no no ce no"
SINKHORN = "dino yes yes yes ce no"


def test_rows_stand_in_the_variants_order_whoever_started_the_runs() -> None:
    table = components(run(local_views=0), run(assignment="sinkhorn"), run(), run(seed=1), run(method="byol"))
    assert words(table) == [BASE, SINKHORN, WITHOUT_CROPS, "byol yes no no mse yes"]
    assert [row.finished for row in rows(table)] == [2, 1, 1, 1]
    assert [row.settings for row in rows(table)] == ["", "", "", ""], "what makes the variant is said by the row"
    assert [row.published[0][0] for row in rows(table)] == ["72.7", "", "67.8", "66.5"]


def test_a_run_of_no_variant_is_left_out() -> None:
    # two components changed at once; an architecture that no size has; a method that no row has
    both = run(local_views=0, loss="mse")
    assert not components(both, make_record("dino", "vit_b16"), run(method="simclr")).blocks


@pytest.mark.parametrize(("value", "filled"), [(0, True), (0.0, True), (False, False), ("0", False), (2, False)])
def test_values_are_compared_as_settings(value: Any, filled: bool) -> None:
    assert bool(components(run(local_views=value)).blocks) is filled


def test_a_value_that_the_preset_has_itself_counts_as_set() -> None:
    """A size or a variant may set what the preset says anyway: it stands in the recipe, not in the changes."""
    source = load_table("multicrop_cost")
    record = run(local_views=2)
    record = with_recipe(record, "training", {**record.recipe["training"], "epochs": 3})
    table = fold(source.description, [record.model_copy(update={"changed_settings": {"backbone.depth": 4}})])
    assert words(table) == ["2+2"]


def test_variants_compare_on_one_base() -> None:
    """A single longer run is no study; a whole longer study stands beside the shorter one."""
    study = [run(), run(local_views=0), run(assignment="sinkhorn")]
    table = components(*study, longer(run(loss="mse")))
    assert words(table) == [BASE, SINKHORN, WITHOUT_CROPS]
    note = "left out: 1 run that differs from these in further settings (training.epochs=50)"
    assert note in table.blocks[0].notes
    table = components(*study, *map(longer, study))
    assert words(table) == [BASE, BASE, SINKHORN, SINKHORN, WITHOUT_CROPS, WITHOUT_CROPS]
    assert [row.settings for row in rows(table)[:2]] == ["12 epochs", "50 epochs"]
    assert not any("left out" in note for note in table.blocks[0].notes)
    # one run beside another of the same row is no study
    table = components(study[0], longer(study[0]))
    assert words(table) == [BASE]
    assert note in table.blocks[0].notes


def test_a_study_with_a_setting_of_the_users_own_fills_the_table() -> None:
    """`bench components --set method.out_dim=64`: all runs differ from the size in it."""
    table = components(run(out_dim=64), run(out_dim=64, local_views=0))
    assert words(table) == [BASE, WITHOUT_CROPS]


def test_variants_without_a_run_are_named() -> None:
    (note,) = [note for note in components(run()).blocks[0].notes if note.startswith("not run")]
    assert note.startswith("not run: without momentum, Sinkhorn-Knopp, without multi-crop, MSE, predictor, BYOL")


def test_an_old_record_is_matched_by_its_command() -> None:
    old = run().model_copy(update={"changed_settings": None, "command": "sslbench run dino --set backbone.depth=4"})
    assert words(components(old)) == [BASE]
    changed = old.model_copy(update={"command": "sslbench run dino --set method.predictor=true"})
    assert not components(changed).blocks


def test_a_row_that_the_variants_show_narrows_the_table() -> None:
    source = load_table("components")
    records = [run(), run(local_views=0)]
    table = fold(narrowed(source.description, records, ["multicrop=no"]), records)
    assert words(table) == [WITHOUT_CROPS]


def test_the_csv_has_what_joins_only() -> None:
    source = load_table("multicrop_cost")
    text = to_csv(fold(source.description, [run(local_views=0)], source.published))
    printed = [row for row in csv.DictReader(io.StringIO(text)) if row["kind"] == "published"]
    assert [row["published_as_printed"] for row in printed][:2] == ["2x224", "2x224+2x96"]


# a row more is one stanza in one file


def test_a_new_row_is_one_stanza_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    stanza = """
[[runs.variant]]
name = "a sharper student"
method = "dino"
arch = "deit_s16"
set = { "method.student_temperature" = 0.05 }
show = { momentum = "yes", sk = "no", multicrop = "yes", loss = "ce, tau_s 0.05", predictor = "no" }
"""
    path.write_text(COMPONENTS + stanza, encoding="utf-8")
    with pytest.raises(UserError, match=r"id = 'components' is one of sslbench's own tables.*my_components"):
        load_table(str(path))  # its files would replace the official ones
    path.write_text(COMPONENTS.replace('id = "components"', 'id = "mine"', 1) + stanza, encoding="utf-8")
    source = load_table(str(path))
    assert source.description.runs is not None
    planned = source.description.runs.all_runs("laptop")[-1]
    assert planned.variant.name == "a sharper student"
    assert planned.settings["method.student_temperature"] == 0.05
    table = fold(source.description, [run(), run(student_temperature=0.05)], source.published)
    assert words(table) == [BASE, "dino yes no yes ce, tau_s 0.05 no"]


# printed numbers


@cache
def all_tables() -> tuple[TableSource, ...]:
    return tuple(map(load_table, built_in_tables()))


def csv_files() -> list[str]:
    return sorted(one.name for one in files("ssl_bench_benchmarks.published").iterdir() if one.name.endswith(".csv"))


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("name", csv_files())
def test_a_published_file_is_the_reference_cell_by_cell(name: str) -> None:
    ours = read((files("ssl_bench_benchmarks.published") / name).read_text("utf-8"))
    assert ours
    assert None not in ours[0], "each row has a cell for each column"
    if not (SHARED / name).is_file():
        pytest.skip("no reference at hand")
    reference = read((SHARED / name).read_text("utf-8"))
    if name == "voc_jaccard.csv":  # the reference has a column for each method
        methods = ("random", "supervised", "dino")
        reference = [{"arch": r["arch"], "method": m, "jaccard_thesis": r[m]} for r in reference for m in methods]
        ours = [{name: row[name] for name in reference[0]} for row in ours if row["jaccard_thesis"]]
        key = itemgetter("arch", "method")
        ours, reference = sorted(ours, key=key), sorted(reference, key=key)
    assert ours == reference


@pytest.mark.parametrize("name", csv_files())
def test_each_printed_number_stands_in_a_table(name: str) -> None:
    """As text, digit for digit, in the list of the table that names the file."""
    naming = [
        one
        for one in all_tables()
        if any(p.file == name and p.listed and not p.where for p in one.description.published)
    ]
    assert naming, f"no table lists {name}"
    (source,) = naming
    index = next(i for i, part in enumerate(source.description.published) if part.file == name)
    part = source.description.published[index]
    listed = fold(source.description, (), source.published).published
    shown = next(one for one in listed if len(one.rows) == len(source.published[index]))
    for row, texts in zip(source.published[index], shown.rows, strict=True):
        assert {texts[column.column] for column in part.columns} == {row[column.column] for column in part.columns}
    numbers = {c.column for c in part.columns} | set(part.join.values())
    left_out = set(source.published[index][0]) - numbers
    assert left_out <= {"row", "panel", "epochs", "multicrop"}, left_out


def test_what_nothing_measures_is_listed_and_never_filled() -> None:
    source = load_table("transfer")
    table = fold(source.description, [make_record()], source.published)
    assert table.blocks == ()
    assert "| deit_s16 | dino       |     99.0 |" in to_markdown(table)
    assert "Nothing was measured" not in to_markdown(table)
