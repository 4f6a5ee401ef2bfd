"""Settings under their earlier names: every committed record, its digest, and what a user still types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from ssl_bench.records.older import in_current_form
from ssl_bench.records.reading import read_evaluation, read_record
from ssl_bench.records.recipe import Recipe
from ssl_bench.records.renamed_settings import (
    RENAMED_SETTINGS,
    assignments_with_current_names,
    with_current_names,
    with_earlier_names,
)
from tests.toy import write_image_folder

RECORDS = sorted(Path(__file__).parents[2].glob("results/runs/*/record.json"))


@pytest.mark.parametrize("plugin", RENAMED_SETTINGS)
def test_todays_name_is_a_setting_and_the_earlier_one_is_not(plugin: str) -> None:
    section, name = plugin.split(".")
    kind = registry.method(name) if section == "method" else registry.evaluator(name)
    settings = kind.Config.model_fields
    for earlier, current in RENAMED_SETTINGS[plugin].items():
        assert current in settings
        assert earlier not in settings
    values = dict.fromkeys(settings, 1)
    assert with_current_names(plugin, with_earlier_names(plugin, values)) == values


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_a_committed_record_has_todays_names_and_its_digest(path: Path) -> None:
    record = read_record(path)
    recipe = Recipe.model_validate(record.recipe)
    stored = json.loads(path.read_text())["digest"]
    assert record.digest == recipe.digest == stored
    # An equal new run writes a recipe with today's names only.
    assert Recipe.model_validate(recipe.model_dump(mode="json")).digest == stored
    assert set(recipe.method.settings) <= set(registry.method(recipe.method.name).Config.model_fields)
    for part in recipe.evaluators:
        assert set(part.settings) <= set(registry.evaluator(part.name).Config.model_fields)
    evaluations = [*record.evaluations, *map(read_evaluation, path.parent.glob("evaluations/*.json"))]
    for evaluation in evaluations:
        assert set(evaluation.settings) <= set(registry.evaluator(evaluation.evaluator).Config.model_fields)
    for key in record.changed_settings or {}:
        assert "grey" not in key
        assert "colour" not in key


def test_an_assignment_under_the_earlier_name_gives_the_same_run(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "tints", train=40, px=32)
    common: dict[str, Any] = {"method": "byol", "arch": "resnet18", "data": str(folder)}
    size = {"training.batch_size": 4}
    earlier = {"method.grey_probability": 0.3, "evaluators.knn.neighbours": [20, 5]}
    current = {"method.gray_probability": 0.3, "evaluators.knn.neighbors": [20, 5]}
    digests = {resolve(Request(**common, values=size | values)).recipe.digest for values in (earlier, current)}
    assert len(digests) == 1
    file = tmp_path / "recipe.toml"
    file.write_text("[method]\ngrey_probability = 0.3\n[evaluators.knn]\nneighbours = [20, 5]\n")
    assert resolve(Request(**common, values=size, recipe_file=file)).recipe.digest in digests
    overridden = resolve(Request(**common, values=size | {"method.gray_probability": 0.9}, recipe_file=file)).recipe
    assert overridden.method.settings["gray_probability"] == 0.9


def test_a_setting_under_both_names_is_refused() -> None:
    with pytest.raises(UserError, match=r"'method\.gray_probability' is given twice, once under its earlier name"):
        assignments_with_current_names({"method.grey_probability": 1, "method.gray_probability": 0}, "dino")


def test_third_party_settings_keep_their_names() -> None:
    values = {"method.grey_probability": 1, "evaluators.mine.standardise": 2, "epochs": 3}
    assert assignments_with_current_names(values, "mine") == values


def test_the_center_box_of_earlier_records() -> None:
    earlier = {"metric": "centre_box", "protocol": "v1, centre box 50 %"}
    (current,) = in_current_form({"evaluator": "voc-jaccard", "measurements": [earlier]})["measurements"]
    assert current == {"metric": "center_box", "protocol": "v1, center box 50 %"}
    (third_party,) = in_current_form({"evaluator": "mine", "measurements": [earlier]})["measurements"]
    assert third_party["metric"] == "centre_box"
