"""Wrong values of every setting that is registered: one message that names the setting, never a traceback."""

from __future__ import annotations

import datetime
import json
import random
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ssl_bench import registry
from ssl_bench.blocks.optimizers import OptimizerSettings
from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from ssl_bench.records.recipe import MachineSettings, TrainingSettings
from ssl_bench.settings import Settings, parse_settings, parse_text
from tests.methods import WITH_SETTINGS
from tests.toy import write_image_folder

WRONG: tuple[Any, ...] = (
    *(None, True, "", "none", "x" * 10_000, "\0", "../..", "\udcff", b"bytes", datetime.date(2020, 1, 1), object()),
    *(0, -1, 2**31, 2**63, 10**400, -(10**5000), 0.5, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")),
    *([], {}, [1.0, 0.4], [0.4, 1.0, 2.0], ["a", "b"], [None, None], [-1, 0], [1e308, -1e308], [[1]], {"a": 1}),
)


def sections(method: str, arch: str) -> dict[str, type[Settings]]:
    evaluators = {f"evaluators.{name}": registry.evaluator(name).Config for name in registry.names("evaluator")}
    return {
        "method": registry.method(method).Config,
        "backbone": registry.backbone(arch.partition(":")[0]).Config,
        "data": registry.dataset("image-folder").Config,
        "optimizer": OptimizerSettings,
        "training": TrainingSettings,
        "machine": MachineSettings,
        **evaluators,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("data") / "tints", train=8, test=2, px=32)


def deep() -> Any:
    value: Any = 1
    for _ in range(5000):
        value = [value]
    return value


@pytest.mark.parametrize("method", WITH_SETTINGS)
def test_no_value_of_any_setting_is_a_traceback(folder: Path, method: str) -> None:
    """Each setting of a request gets wrong and extreme values; what is accepted must give a whole recipe."""
    draw = random.Random(method)
    first = method == WITH_SETTINGS[0]  # the other sections depend on no method
    for arch in ("deit_ti16", "resnet18", "timm:convnext_atto") if first else ("deit_ti16",):
        for section, model in sections(method, arch).items():
            if (section != "method" and not first) or (section != "backbone" and arch != "deit_ti16"):
                continue
            evaluators = (section.partition(".")[2],) if section.startswith("evaluators") else ("knn",)
            if "path" in model.model_fields:
                continue  # drawing its own data takes long; `test_a_value_of_the_wrong_kind...` has its settings
            for name in model.model_fields:
                for value in draw.sample(WRONG, 6):
                    values = {"training.batch_size": 4, f"{section}.{name}": value}
                    message = answer(Request(method, arch, str(folder), evaluators=evaluators, values=values))
                    assert len(message) < 3000
                    message.encode()


def answer(request: Request) -> str:
    """The message of a refused request; "" for one that gives a recipe, which must be printable in both forms."""
    try:
        recipe = resolve(request).recipe
    except UserError as error:
        return str(error)
    json.loads(recipe.model_dump_json())
    tomllib.loads(recipe.to_toml())
    return ""


@pytest.mark.parametrize("kind", ["method", "backbone", "evaluator", "dataset"])
def test_a_value_of_the_wrong_kind_is_named_with_what_is_allowed(kind: Any) -> None:
    for plugin in registry.names(kind):
        model = getattr(registry, kind)(plugin).Config
        for name in model.model_fields:
            for value in ({"a": [1]}, object()):
                with pytest.raises(UserError) as error:
                    parse_settings(model, {name: value}, kind, plugin)
                assert f"'{kind}.{name}' = " in str(error.value)
                assert repr(value)[:20] in str(error.value)


def test_reversed_and_impossible_ranges_are_answered(folder: Path) -> None:
    """The settings that are pairs of numbers, of every method."""
    found = 0
    for method in WITH_SETTINGS:
        for name in registry.method(method).Config.model_fields:
            if not name.endswith(("scale", "sigma_px")):
                continue
            found += 1
            for value, words in (([1.0, 0.4], "Give [0.4, 1]"), ([-1, 0.5], "give two"), (3, "a list of 2 values")):
                values = {"training.batch_size": 4, f"method.{name}": value}
                with pytest.raises(UserError) as error:
                    resolve(Request(method, "deit_ti16", str(folder), values=values))
                assert f"'method.{name}'" in str(error.value)
                assert words in str(error.value)
    assert found >= 10


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000, "1e999", "nul", "[1, 2"])
def test_whatever_is_typed_becomes_a_value_or_stays_text(text: str) -> None:
    parse_text(text)


def test_values_that_are_too_deep_or_long_to_show() -> None:
    for value in (deep(), 10**5000, "x" * 10**6):
        with pytest.raises(UserError) as error:
            parse_settings(TrainingSettings, {"epochs": value}, "training", "training")
        assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "content",
    [
        *("method = 5", "with = 5", "run = 5", "evaluators = 5", "[[method]]\nx = 1", "[run]\narch = 3"),
        *('[run]\nwith = ["knn", 3]', "[run]\nwith = 5", '[run]\nwith = "knn"', "[run]\nmethod = ['dino']"),
        *("[run]\ndata = 2020-01-01", "[run]\npreset = { a = 1 }", "[run]\nmethod = ''", "[evaluators]\nknn = 5"),
        *("[evaluators.knn]\ntemperature = { a = 1 }", "[training]\nepochs = 2020-01-01", "[training.epochs]\na = 1"),
        *("[training]\nepochs = nan", "[training]\nepochs = inf", f"[training]\nepochs = {'9' * 5000}"),
        *("[training]\nepochs = [[[[1]]]]", f"x = {'[' * 100_000}", "[method]\nhue = '0.1.2'", "[run]\n[run]", "\0"),
        *("[training]\nbatch_size = true", "[machine]\ndevice = 3", "[data]\nimage_px = 'big'", "[backbone]\ndim = []"),
    ],
)
def test_a_wrong_recipe_file_is_one_message(folder: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "r.toml").write_text(content)
    with pytest.raises(UserError) as error:
        resolve(Request("simclr", "deit_ti16", str(folder), recipe_file=tmp_path / "r.toml"))
    assert len(str(error.value)) < 1000
