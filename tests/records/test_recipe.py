"""Recipes: layers, refusals in the user's words, digests, and the way back from a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request, request_of
from ssl_bench.recipes.resolve import resolve
from ssl_bench.records.recipe import Recipe
from tests.toy import write_image_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("data") / "tints", train=40, px=32)


def request(folder: Path, **changes: Any) -> Request:
    values = {"training.batch_size": 4, **changes.pop("values", {})}
    return Request(**{"method": "dino", "arch": "deit_ti16", "data": str(folder), "values": values, **changes})


def test_layers_later_ones_win(folder: Path, tmp_path: Path) -> None:
    plain = resolve(request(folder)).recipe
    preset = resolve(request(folder)).method.presets["small-data"].values
    assert plain.method.settings["out_dim"] == preset["method.out_dim"]
    file = tmp_path / "recipe.toml"
    file.write_text("[method]\nout_dim = 64\n[optimizer]\nbase_lr = 0.25\n[evaluators.knn]\ntemperature = 0.2\n")
    from_file = resolve(request(folder, recipe_file=file)).recipe
    assert from_file.method.settings["out_dim"] == 64
    assert from_file.optimizer["base_lr"] == 0.25
    assert next(p for p in from_file.evaluators if p.name == "knn").settings["temperature"] == 0.2
    both = resolve(request(folder, recipe_file=file, values={"method.out_dim": 32})).recipe
    assert (both.method.settings["out_dim"], both.optimizer["base_lr"]) == (32, 0.25)


def test_the_small_data_preset_is_chosen_and_said_so(folder: Path) -> None:
    resolved = resolve(request(folder))
    assert resolved.preset == "small-data"
    assert "80 training images are fewer than 20,000" in resolved.preset_reason
    assert resolve(request(folder, preset="paper")).recipe.method.settings["out_dim"] == 65536


def test_a_preset_for_small_sets_counts_steps_and_not_epochs(folder: Path) -> None:
    preset = resolve(request(folder)).method.presets["small-data"]
    assert preset.steps is not None
    assert resolve(request(folder)).recipe.training.epochs == round(preset.steps * 4 / 80)
    assert resolve(request(folder, values={"training.epochs": 3})).recipe.training.epochs == 3
    assert resolve(request(folder, preset="paper")).recipe.training.epochs == 300


def test_convolutional_networks_get_their_own_values(folder: Path) -> None:
    resolved = resolve(request(folder, arch="resnet18", preset="paper"))
    assert resolved.recipe.optimizer["name"] == "sgd"
    assert resolve(request(folder, preset="paper")).recipe.optimizer["name"] == "adamw"


def test_nothing_is_left_open_in_a_recipe(folder: Path) -> None:
    settings = resolve(request(folder)).recipe.method.settings
    assert settings["global_crop_px"] == 32
    assert settings["local_crop_px"] == 16
    assert None not in settings.values()


def test_a_recipe_goes_through_json_toml_and_back_to_the_same_digest(folder: Path, tmp_path: Path) -> None:
    recipe = resolve(request(folder, values={"method.local_views": 3, "training.seed": 5})).recipe
    assert Recipe.model_validate(json.loads(recipe.model_dump_json())).digest == recipe.digest
    assert resolve(request_of(recipe, {})).recipe.digest == recipe.digest
    file = tmp_path / "again.toml"
    file.write_text(recipe.to_toml())
    assert resolve(Request(recipe_file=file, preset="none")).recipe.digest == recipe.digest


def test_the_digest_follows_what_decides_a_run_and_not_where_it_happens(folder: Path, tmp_path: Path) -> None:
    digest = resolve(request(folder)).recipe.digest
    moved = tmp_path / "tints"
    shutil.copytree(folder, moved)
    assert resolve(request(moved)).recipe.digest == digest
    assert resolve(request(folder, values={"machine.workers": 3})).recipe.digest == digest
    (moved / "train" / "a" / "0.png").unlink()
    assert resolve(request(moved)).recipe.digest != digest
    for values in ({"training.seed": 1}, {"method.loss": "mse"}, {"optimizer.base_lr": 0.1}, {"training.epochs": 3}):
        assert resolve(request(folder, values=values)).recipe.digest != digest


def test_run_ids_name_method_arch_data_and_seed(folder: Path) -> None:
    recipe = resolve(request(folder, values={"training.seed": 3})).recipe
    assert recipe.run_id == f"dino-deit_ti16-tints-s3-{recipe.digest[:4]}"
    timm = resolve(request(folder, arch="timm:resnet10t")).recipe
    assert timm.run_id.startswith("dino-timm_resnet10t-tints-s0-")  # a colon would be a host to rsync


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "dinno"}, "no method is called 'dinno'. Did you mean 'dino'?"),
        ({"method": None}, "no method given. Known: "),
        ({"arch": None}, "no architecture given: add --arch"),
        ({"arch": "deit_s61"}, "no backbone is called 'deit_s61'. Did you mean 'deit_s16'?"),
        ({"preset": "smal-data"}, "no preset of dino is called 'smal-data'. Did you mean 'small-data'?"),
        ({"evaluators": ("kn",)}, "no evaluator is called 'kn'. Did you mean 'knn'?"),
        (
            {"values": {"method.teacher_temprature": 0.05}},
            "'method.teacher_temprature' is not a setting of dino. Did you mean 'method.teacher_temperature'?",
        ),
        ({"values": {"methd.loss": "ce"}}, "'methd.loss' is not a setting. Did you mean 'method'?"),
        ({"values": {"epochs": 3}}, "'epochs' is not a setting"),
        ({"values": {"training.epochs": -1}}, "'training.epochs' = -1"),
        ({"values": {"training.epochs": "ten"}}, "'training.epochs' = 'ten'"),
        ({"values": {"method.loss": "nce"}}, "'method.loss' = 'nce': input should be 'ce' or 'mse'"),
        ({"values": {"optimizer.base_lr": float("nan")}}, "optimizer.base_lr"),
        ({"values": {"training.batch_size": 81}}, "larger than the training set of tints (80 images)"),
        ({"values": {"evaluators.davis.x": 1}}, "sets an evaluator that does not run here"),
        ({"values": {"method.local_crop_px": 20}}, "20 px"),
        ({"arch": "timm:resnet18", "values": {"backbone.nme": "x"}}, "'backbone.nme' is not a setting of timm"),
    ],
)
def test_a_wrong_request_is_answered_before_anything_is_built(folder: Path, changes: Any, words: str) -> None:
    with pytest.raises(UserError) as error:
        resolve(request(folder, **changes))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[methd]\nx = 1", "[methd] in"),
        ("[run]\nmetod = 'dino'", "'run.metod' in"),
        ("x = ", "is not TOML"),
        ("method = 'dino'", "[method] in"),
    ],
)
def test_a_wrong_recipe_file_is_named(folder: Path, tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(content)
    with pytest.raises(UserError) as error:
        resolve(request(folder, recipe_file=file))
    assert words in str(error.value)
    assert "bad.toml" in str(error.value)
    with pytest.raises(UserError, match="cannot read the recipe"):
        resolve(request(folder, recipe_file=tmp_path / "none.toml"))
