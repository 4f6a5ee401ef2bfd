"""What a row says of its settings: nothing that differs is hidden, whatever else differs beside it."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_bench import registry
from ssl_bench.blocks.optimizers import OptimizerSettings
from ssl_bench.records.recipe import TrainingSettings
from ssl_bench.records.record import RunRecord
from ssl_bench.tables.fold import fold
from ssl_bench.tables.loading import TableSource, built_in_tables, load_table
from ssl_bench.tables.table import Row, Table
from tests.example_records import evaluation, evaluations, make_record, measured
from tests.methods import WITH_SETTINGS
from tests.tables.test_tables import describe

ALL_EVALUATORS = (
    *evaluations(),
    evaluation("voc-jaccard", "trained", measured(40.0, metric="best_head")),
    evaluation("davis", "trained", measured(50.0, metric="jf_mean")),
    evaluation("label-free", "trained", measured(9.0, metric="rankme", unit="dims")),
)


def full_recipe(method: str, arch: str = "deit_s16") -> dict[str, Any]:
    """A recipe with every setting of the method, the backbone, the optimizer and the training."""
    record = make_record(method, arch)
    recipe = {name: dict(part) if isinstance(part, dict) else part for name, part in record.recipe.items()}
    recipe["method"] = {"name": method, "settings": plain_defaults(registry.method(method).Config)}
    recipe["backbone"] = {"name": arch, "settings": plain_defaults(registry.backbone(arch).Config)}
    recipe["optimizer"] = plain_defaults(OptimizerSettings)
    recipe["training"] = plain_defaults(TrainingSettings)
    return recipe


def plain_defaults(model: Any) -> dict[str, Any]:
    return dict(model().model_dump(mode="json"))


def other(value: Any) -> Any:
    """Another value of the same type, close by: a text that is cut or rounded would hide the difference."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [*value[:-1], other(value[-1])] if value else [1]
    if isinstance(value, int | float):
        return value + 1e-9 if isinstance(value, float) else value + 1
    return f"{value}x" if isinstance(value, str) else 7


def with_setting(recipe: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    section, *rest = path
    part = recipe[section]
    return {**recipe, section: with_setting(part, tuple(rest), value) if rest else value}


def paths_of(recipe: dict[str, Any]) -> list[tuple[str, ...]]:
    parts = [("method", "settings"), ("backbone", "settings"), ("optimizer",), ("training",)]
    found = []
    for part in parts:
        values = recipe[part[0]] if len(part) == 1 else recipe[part[0]][part[1]]
        found += [(*part, name) for name in values if (*part, name) not in NO_DIFFERENCE]
    return found


NO_DIFFERENCE = (("training", "seed"), ("training", "eval_every"))
"""Runs that differ in these are one row: evaluation during training leaves training as it is."""


def look(recipe: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = recipe
    for name in path:
        value = value[name]
    return value


def record_of(recipe: dict[str, Any], name: str, precision: str = "fp32", **changes: Any) -> RunRecord:
    values = {"changed_settings": None, "evaluations": ALL_EVALUATORS} | changes
    record = make_record(recipe["method"]["name"], recipe["backbone"]["name"], run_id=name, **values)
    machine = record.machine.model_copy(update={"precision": precision})
    return record.model_copy(update={"recipe": recipe, "machine": machine})


def rows(table: Table) -> list[Row]:
    return [row for block in table.blocks for row in block.rows]


def all_tables(*records: RunRecord) -> list[Table]:
    return [fold(one.description, records, one.published) for one in showing_any_run()] + [fold(describe(), records)]


@cache
def showing_any_run() -> list[TableSource]:
    sources = [load_table(name) for name in built_in_tables()]
    return [one for one in sources if one.description.column and not one.description.of_variants]


@pytest.mark.parametrize("method", WITH_SETTINGS)
def test_a_setting_that_differs_is_named_beside_another_that_the_table_shows(method: str) -> None:
    """For every setting of a method: two runs that differ in it and in the precision that auto decided."""
    recipe = full_recipe(method)
    for path in paths_of(recipe):
        changed = with_setting(recipe, path, other(look(recipe, path)))
        for table in all_tables(record_of(recipe, "one", "fp32"), record_of(changed, "two", "bf16")):
            assert [row.finished for row in rows(table)] == [1, 1], path
            texts = [row.settings for row in rows(table)]
            if "recipe." + ".".join(path) not in {key.path for key in table.description.distinguish}:
                assert all(f"{path[0]}.{path[-1]}=" in text for text in texts), (path, texts)
            assert len({without_precision(text) for text in texts}) == 2, (path, texts)


def without_precision(text: str) -> str:
    """A row's settings without the precision that was decided."""
    parts = [part for part in text.split(", ") if part not in ("trained in fp32", "trained in bf16")]
    return ", ".join(part for part in parts if not part.startswith("machine.precision="))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_with_several_differences_each_name_what_is_not_standard(data: st.DataObject) -> None:
    """Runs with any mixture of changes: no two rows look alike, and a run that has a value of its own names it."""
    recipe = full_recipe("dino")
    paths = data.draw(st.lists(st.sampled_from(paths_of(recipe)), min_size=1, max_size=4, unique=True))
    subsets = data.draw(st.lists(st.frozensets(st.sampled_from(paths)), min_size=2, max_size=5, unique=True))
    records = []
    for index, subset in enumerate(subsets):
        changed = recipe
        for path in subset:
            changed = with_setting(changed, path, other(look(recipe, path)))
        records.append(record_of(changed, str(index), data.draw(st.sampled_from(["fp32", "bf16"]))))
    table = fold(describe(), records)
    shown = {row.runs[0]: row.settings for row in rows(table)}
    assert len(set(shown.values())) == len(records)
    for path in paths:
        having = [str(index) for index, subset in enumerate(subsets) if path in subset]
        name = f"{path[0]}.{path[-1]}="
        named = {run for run, text in shown.items() if name in text}
        notes = [note for note in table.blocks[0].notes if "unless its row says otherwise" in note and name in note]
        if 0 < len(having) < len(records):
            minority = min(having, sorted(set(shown) - set(having)), key=len)
            assert set(minority) <= named
            assert named == set(shown) or notes  # a standard that rows leave unsaid stands in a note
        else:
            assert not named
            assert not notes


def test_a_run_alone_in_its_table_names_what_it_changes_of_its_preset() -> None:
    changes = {"method.local_views": 0, "method.out_dim": 4096}
    record = make_record(settings={"local_views": 0, "out_dim": 4096}, changed_settings=changes)
    for precision in ("fp32", "bf16"):
        machine = record.machine.model_copy(update={"precision": precision})
        (row,) = rows(fold(describe(), [record.model_copy(update={"machine": machine})]))
        assert row.settings == "method.local_views=0, method.out_dim=4096"


def test_an_old_record_names_what_its_command_set() -> None:
    command = "sslbench run dino --set method.local_views=8 --set 'method.local_scale=[0.1, 0.4]' --batch-size 32"
    settings = {"local_views": 8, "local_scale": [0.1, 0.4]}
    record = make_record(settings=settings, changed_settings=None, command=command)
    (row,) = rows(fold(describe(), [record]))
    assert row.settings == "method.local_scale=[0.1, 0.4], method.local_views=8, training.batch_size=32"


def test_presets_do_not_list_their_own_values_where_changes_are_recorded() -> None:
    small = make_record(settings={"local_views": 2})
    paper = make_record(settings={"local_views": 8}, preset="paper")
    without = make_record(settings={"local_views": 0}, preset="paper", changed_settings={"method.local_views": 0})
    anything = load_table("comparison").description.model_copy(update={"runs": None})
    table = fold(anything, [small, paper, without])
    assert [row.settings for row in rows(table)] == [
        "preset paper, method.local_views=0",
        "preset paper, method.local_views=8",
        "preset small-data",
    ]
    old = [record.model_copy(update={"changed_settings": None}) for record in (small, paper)]
    table = fold(load_table("comparison").description, old)
    assert all("method.local_views=" in row.settings for row in rows(table))


def test_labels_that_give_two_values_one_word_hide_no_difference() -> None:
    key = {"id": "multicrop", "from": "recipe.method.settings.local_views", "labels": {"0": "no", "*": "yes"}}
    records = [make_record(settings={"local_views": number}, run_id=str(number)) for number in (0, 6, 8)]
    for where in ("row", "distinguish"):
        given_keys = [{"id": "method", "from": "method"}, *([key] if where == "row" else [])]
        table = fold(describe(row=given_keys, distinguish=[key] if where == "distinguish" else []), records)
        texts = [(*row.keys, row.settings) for row in rows(table)]
        assert len(set(texts)) == 3
        assert any("method.local_views=6" in row.settings for row in rows(table))
        assert any("method.local_views=8" in row.settings for row in rows(table))


def test_values_that_agree_in_their_first_letters_are_told_apart() -> None:
    long = [[0.1 * number for number in range(20)], [0.1 * number for number in range(20)] + [9.0]]
    table = fold(describe(), [make_record(settings={"scales": value}) for value in long])
    assert rows(table)[0].settings != rows(table)[1].settings


def test_a_setting_that_an_older_record_lacks_is_another_row() -> None:
    table = fold(describe(), [make_record(run_id="old"), make_record(settings={"new": None}, run_id="new")])
    assert sorted(row.settings for row in rows(table)) == ["method.new=none", "method.new=not recorded"]


def test_values_of_two_types_still_name_their_runs() -> None:
    table = fold(describe(), [make_record(settings={"x": x}, run_id=str(i)) for i, x in enumerate((1, 1.0))])
    first, second = (row.settings for row in rows(table))
    assert first != second


def test_mixed_precisions_are_said_and_random_is_not_counted() -> None:
    mixed = [make_record(run_id="a"), with_precision(make_record("byol"), "bf16")]
    (note,) = [n for n in fold(describe(), mixed).blocks[0].notes if n.startswith("precision")]
    assert "trained in bf16 and some in fp32" in note
    assert "auto" in note
    untrained = mixed[0].model_copy(update={"training": mixed[0].training.model_copy(update={"steps": 0})})
    assert not [n for n in fold(describe(), [untrained, mixed[1]]).blocks[0].notes if n.startswith("precision")]


def with_precision(record: RunRecord, precision: str) -> RunRecord:
    return record.model_copy(update={"machine": record.machine.model_copy(update={"precision": precision})})


def test_seeds_of_two_precisions_are_never_one_mean() -> None:
    for table in all_tables(
        make_record(seed=0, evaluations=ALL_EVALUATORS),
        with_precision(make_record(seed=1, evaluations=ALL_EVALUATORS), "bf16"),
    ):
        assert [row.finished for row in rows(table)] == [1, 1]
        for first, second in combinations(rows(table), 2):
            assert {"fp32" in first.settings, "fp32" in second.settings} == {True, False}


def test_runs_with_and_without_evaluation_during_training_are_one_row() -> None:
    plain = make_record(seed=0, evaluations=ALL_EVALUATORS)
    with_curve = make_record(seed=1, evaluations=ALL_EVALUATORS)
    training = {**with_curve.recipe["training"], "eval_every": 1}
    with_curve = with_curve.model_copy(update={"recipe": {**with_curve.recipe, "training": training}})
    for table in all_tables(plain, with_curve):
        assert [row.finished for row in rows(table)] == [2]
