"""A printed recipe brings back exactly itself: every method, network and preset, from any working directory."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request, request_of
from ssl_bench.recipes.resolve import Resolved, resolve
from ssl_bench.records.recipe import toml_key, toml_value
from tests.methods import WITH_SETTINGS
from tests.toy import write_image_folder

ARCHS = ("deit_ti16", "resnet18", "timm:vit_tiny_patch16_224", "timm:convnext_atto")
PRESETS = [(method, preset) for method in WITH_SETTINGS for preset in (*registry.method(method).presets, "none")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset whose own name is that of a built-in one, and a working directory elsewhere."""
    place = tmp_path_factory.mktemp("a place ünd é")
    write_image_folder(place / "imagenet", train=10, test=2, px=32)
    (place / "elsewhere").mkdir()
    return place


def printed(resolved: Resolved) -> str:
    return resolved.recipe.to_toml(resolved.preset)


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_a_printed_recipe_is_read_as_itself(
    place: Path, monkeypatch: pytest.MonkeyPatch, method: str, preset: str
) -> None:
    for arch in ARCHS:
        monkeypatch.chdir(place)
        values = {"training.batch_size": 8}
        if "prototypes" in registry.method(method).Config.model_fields:
            values["method.prototypes"] = 4  # the paper's 3,000 are refused for 20 images
        first = resolve(Request(method, arch, "./imagenet", preset, values=values))
        monkeypatch.chdir(place / "elsewhere")
        file = Path("recipe.toml")
        file.write_text(printed(first), encoding="utf-8")
        again = resolve(Request(recipe_file=file))
        assert printed(again) == printed(first)
        assert again.recipe == first.recipe
        assert resolve(request_of(first.recipe, {})).recipe == first.recipe


@pytest.mark.parametrize("text", ["shapes", "imagenet", "cifar10", "with space", "emoji 🙂 \x7f"])
@pytest.mark.parametrize("written", ["./{}", "../here/{}", "~/{}", "{}/", "link/../{}"])
def test_a_folder_stays_that_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, written: str) -> None:
    here = tmp_path / "here"
    write_image_folder(here / text, train=5, test=2)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    os.symlink(tmp_path / "deep" / "er", here / "link")
    os.symlink(here / text, tmp_path / "deep" / text)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))
    if written == "{}/" and text in ("imagenet", "cifar10", "shapes"):
        written = "./{}/"
    request = Request("simclr", "deit_ti16", written.format(text), values={"training.batch_size": 4})
    first = resolve(request)
    assert (
        first.dataset.name == ("images" if "emoji" in text else text).replace("with space", "with-space")
        or "emoji" in text
    )
    assert os.path.samefile(str(first.recipe.data.path), here / text)
    monkeypatch.chdir("/")
    (tmp_path / "r.toml").write_text(printed(first), encoding="utf-8")
    assert printed(resolve(Request(recipe_file=tmp_path / "r.toml"))) == printed(first)


def test_the_plugin_that_read_a_folder_reads_it_again(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "tints", train=5, test=2)
    first = resolve(Request("simclr", "deit_ti16", f"image-folder:{tmp_path}/tints", values={"training.batch_size": 4}))
    assert first.recipe.data.reference == f"image-folder:{tmp_path}/tints"
    old = first.recipe.model_copy(update={"data": first.recipe.data.model_copy(update={"plugin": "", "path": "tints"})})
    assert old.data.reference == "./tints"  # as earlier versions wrote it down
    assert old.digest == first.recipe.digest


def test_paths_of_evaluators_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in registry.names("evaluator"):
        kind = registry.evaluator(name)
        if "path" in kind.Config.model_fields:
            monkeypatch.chdir(tmp_path)
            monkeypatch.setenv("HOME", str(tmp_path))
            for text in ("some where", "~/some where", "./some where"):
                config: Any = kind.Config(path=text)
                assert config.path == str(tmp_path / "some where")


def test_a_path_that_no_record_can_hold_is_refused(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    write_image_folder(Path(folder), train=4, test=2)
    with pytest.raises(UserError, match=r"caf\\xe9 has bytes that are not UTF-8") as caught:
        resolve(Request("simclr", "deit_ti16", folder, values={"training.batch_size": 4}))
    str(caught.value).encode()


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -3,
        10**30,
        1e-8,
        1e22,
        0.1,
        "",
        'a\\b "c" \n\t\x7f\x01 é 🙂',
        ["x", 1],
        [[1.5], []],
        {"a b": {"c": 1}},
    ],
)
def test_values_are_written_as_toml_reads_them(value: Any) -> None:
    read = tomllib.loads(f"{toml_key('a.key é')} = {toml_value(value)}")
    assert read == {"a.key é": "none" if value is None else value}


def test_networks_of_one_plugin_are_told_apart_by_name(place: Path) -> None:
    data = str(place / "imagenet")
    values = {"training.batch_size": 8}
    recipe = resolve(Request("dino", "timm:resnet18", data, values=values)).recipe
    ours = resolve(Request("dino", "resnet18", data, values=values)).recipe
    assert (recipe.arch, ours.arch) == ("timm:resnet18", "resnet18")
    assert recipe.run_id.startswith("dino-timm_resnet18-imagenet-s0-")
    assert ours.run_id.startswith("dino-resnet18-imagenet-s0-")
