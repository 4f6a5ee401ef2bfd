"""Which runs a study needs and in what order: nothing is trained here."""

from __future__ import annotations

import dataclasses
import random
import shlex
from pathlib import Path

import pytest

from ssl_bench.datasets.opening import OpenedOnce
from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from ssl_bench.records.recipe import Recipe
from ssl_bench.settings import assignment_text, parse_assignments
from ssl_bench.studies.cells import Wish, command_of
from ssl_bench.studies.found import folders_of
from ssl_bench.studies.plan import Place, StudyRun, in_order, kind
from ssl_bench.studies.study import figures_of, load_study, planned
from tests.studies.tiny import TABLE, write_table


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyRun, ...]:
    table = write_table(tmp_path_factory.mktemp("tables"))
    return planned(load_study(str(table)), Wish()).runs


def test_one_seed_of_every_row_comes_before_the_next_seed(runs: tuple[StudyRun, ...]) -> None:
    assert [(run.places[0].row, run.recipe.training.seed) for run in runs] == [
        ("untrained", 0), ("contrast", 0), ("untrained", 1), ("contrast", 1),
    ]  # fmt: skip


def test_equal_recipes_of_several_tables_are_one_run_that_fills_rows_of_all(runs: tuple[StudyRun, ...]) -> None:
    again = [dataclasses.replace(run, places=(Place("other", "row"),)) for run in runs[:2]]
    merged = in_order([*runs, *again, *again])
    assert [run.recipe.digest for run in merged] == [run.recipe.digest for run in runs]
    assert merged[0].places == (Place("tiny", "untrained"), Place("other", "row"))
    assert merged[2].places == (Place("tiny", "untrained"),)


def test_rows_that_train_the_same_networks_are_one_run_with_all_their_evaluators(
    runs: tuple[StudyRun, ...], tmp_path: Path
) -> None:
    table = TABLE.replace('with = ["knn"]', 'with = ["knn", "kmeans"]')
    clusters = planned(load_study(str(write_table(tmp_path, table, "clusters"))), Wish(seeds=1)).runs
    merged = in_order([*runs, *clusters])
    assert len(merged) == 4
    assert [part.name for part in merged[1].recipe.evaluators] == ["knn", "kmeans"]
    assert [place.table for place in merged[1].places] == ["tiny", "clusters"]
    assert resolve(merged[1].request).recipe == merged[1].recipe
    assert merged[3] == runs[3]  # seed 1 is in one table only
    table = TABLE.replace('"evaluators.knn.neighbors" = [1]', '"evaluators.knn.neighbors" = [1, 2]')
    others = planned(load_study(str(write_table(tmp_path, table, "others"))), Wish(seeds=1)).runs
    assert len(in_order([*runs, *others, *others])) == 6  # other settings of one evaluator: runs of their own


def test_runs_that_begin_with_the_same_characters_have_folders_of_their_own(
    runs: tuple[StudyRun, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Recipe, "name_with", lambda recipe, count: f"run-{recipe.digest[:count] if count > 4 else 'same'}"
    )
    folders = {place.folder.name for place in folders_of(runs, tmp_path).values()}
    assert len(folders) == 4
    assert "run-same" in folders


def test_the_set_of_runs_does_not_depend_on_the_order_they_are_given_in(runs: tuple[StudyRun, ...]) -> None:
    shuffled = list(runs)
    random.Random(0).shuffle(shuffled)
    assert {run.recipe.digest for run in in_order(shuffled)} == {run.recipe.digest for run in runs}
    assert [run.recipe.training.seed for run in in_order(shuffled)] == [0, 0, 1, 1]


def test_seeds_data_and_settings_of_the_user_replace_the_sizes(tmp_path: Path) -> None:
    sources = load_study(str(write_table(tmp_path)))
    asked = planned(sources, Wish(seeds=1, values={"training.batch_size": 8})).runs
    assert [run.recipe.training.seed for run in asked] == [0, 0]
    assert {run.recipe.training.batch_size for run in asked} == {8}


def test_the_command_of_a_run_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSLBENCH_DATA", str(tmp_path))
    request = Request(method="dino", arch="resnet18", data=f"{tmp_path}/photos", eval_data=(f"{tmp_path}/birds",))
    assert shlex.split(command_of(request))[5:] == [
        "--data", "$SSLBENCH_DATA/photos", "--eval-data", "$SSLBENCH_DATA/birds",
    ]  # fmt: skip


def test_a_run_has_the_recipe_of_the_command_that_its_record_names(runs: tuple[StudyRun, ...]) -> None:
    run = runs[3]
    words = shlex.split(command_of(run.request))
    assert words[:4] == ["sslbench", "run", "simclr", "--arch"]
    options: dict[str, list[str]] = {}
    for name, value in zip(words[3::2], words[4::2], strict=True):
        options.setdefault(name, []).append(value)
    typed = Request(
        method="simclr", arch=options["--arch"][0], data=options["--data"][0], preset=options["--preset"][0],
        evaluators=tuple(options["--with"][0].split(",")),
        values=parse_assignments(options["--set"]) | {"training.seed": int(options["--seed"][0])},
    )  # fmt: skip
    assert resolve(typed).recipe.digest == run.recipe.digest


@pytest.mark.parametrize("value", [1, 0.5, "adamw", "1", "null", "[1", True, None, [1, 2], "a b", '"quoted"', "ü"])
def test_a_setting_is_written_as_it_is_read(value: object) -> None:
    assert parse_assignments([assignment_text("a.b", value)]) == {"a.b": value}


def test_runs_of_a_kind_differ_in_seed_rates_and_epochs_only(runs: tuple[StudyRun, ...]) -> None:
    def changed(**values: object) -> str:
        given = {**runs[1].request.values, **{name.replace("__", "."): value for name, value in values.items()}}
        return kind(resolve(dataclasses.replace(runs[1].request, values=given)).recipe)

    this = kind(runs[1].recipe)
    assert this == kind(runs[3].recipe) == changed(training__epochs=5) == changed(optimizer__base_lr=0.1)
    others = [changed(training__batch_size=8), changed(backbone__depth=2), changed(data__train_images=80)]
    assert len({this, *others, kind(runs[0].recipe)}) == 5


def test_data_opened_once_are_the_same_data_and_do_not_share_changes(runs: tuple[StudyRun, ...]) -> None:
    opened = OpenedOnce()
    first, second = resolve(runs[1].request, opened), resolve(runs[1].request, opened)
    assert first.dataset is not second.dataset
    assert first.dataset.train is second.dataset.train
    first.dataset.name = "renamed"
    assert second.dataset.name == "shapes"
    assert second.recipe.digest == runs[1].recipe.digest


PUBLISHED = """[[published]]
file = "printed.csv"
data = "x"
source = "y"
join = { method = "method" }
columns = [{ column = "knn", title = "k-NN" }]

"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('method = "simclr"', 'method = "simclear"'), "'simclear'"),
        (('"backbone.depth" = 1', '"backbone.deepth" = 1'), "row 'untrained'.*backbone.deepth.*backbone.depth"),
        (('name = "contrast"', 'name = "untrained"'), "'untrained' stands 2 times"),
        (('name = "contrast"', 'name = "contrast"\nsett = 1'), "sett.*Did you mean 'set'"),
        (('title = "A', 'titel = "x"\ntitle = "A'), "'titel' is not a key.*Did you mean 'title'"),
        (('arch = "deit_ti16"', 'arch = "deit_ti61"'), "Did you mean 'deit_ti16'"),
        ((TABLE[TABLE.index("[[runs.variant]]") :], ""), "no row: give a .*runs.variant"),
        (('"training.epochs" = 2', '"training.epochs" = "many"'), "row 'contrast'.*valid integer"),
        (("knn.primary", "knn.top1_k7"), "column 'knn': knn will measure no 'top1_k7'.*'top1_k1'"),
        (("knn.primary", "kn.primary"), "column 'knn': no evaluator is called 'kn'. Did you mean 'knn'"),
        (('neighbors" = [1], "evaluators.knn.reported" = 1', 'neighbors" = [65], "evaluators.knn.reported" = 65'),
         "row 'untrained'.*64 images; give a k of at most that"),
        (("[runs.size.laptop]", PUBLISHED + "[runs.size.laptop]"),
         "printed.csv has no column 'method'. Did you mean 'methods'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_description_names_the_row(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    assert change[0] in TABLE
    (tmp_path / "printed.csv").write_text("methods,knn\ndino,3\n")
    table = write_table(tmp_path, TABLE.replace(*change))
    with pytest.raises(UserError, match=f"(?s){words}"):
        planned(load_study(str(table)), Wish())


def test_a_column_of_more_neighbors_than_training_images_is_refused(tmp_path: Path) -> None:
    text = TABLE.replace("knn.primary", "knn.top1_k65").replace('neighbors" = [1]', 'neighbors" = [1, 65]')
    with pytest.raises(UserError, match=r"column 'knn': knn will measure no 'top1_k65'.* as many training images"):
        planned(load_study(str(write_table(tmp_path, text))), Wish())
    enough = text.replace('"data.train_images" = 64', '"data.train_images" = 65')
    assert planned(load_study(str(write_table(tmp_path, enough))), Wish()).runs


def test_a_figure_stands_for_the_table_that_it_draws(tmp_path: Path) -> None:
    write_table(tmp_path)
    figure = tmp_path / "figure.toml"
    figure.write_text(
        'id = "figure"\ntitle = "T"\ntable = "tiny.toml"\nkind = "bars"\nseries = ["method"]\n[[panel]]\ny = "knn"\n'
    )
    (source,) = load_study(str(figure))
    assert source.description.id == "tiny"
    assert figures_of(load_study("voc_jaccard")) == ["voc_jaccard"]
    assert figures_of([source]) == []


def test_an_unknown_study_or_size_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="thesis"):
        load_study("thesi")
    with pytest.raises(UserError, match=r"'labtop'.*laptop"):
        planned(load_study(str(write_table(tmp_path))), Wish(size="labtop"))
    with pytest.raises(UserError, match="nothing says which runs"):
        planned(load_study("label_free"), Wish())
