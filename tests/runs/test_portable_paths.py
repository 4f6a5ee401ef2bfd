"""What a run writes names data below `$SSLBENCH_DATA` or `~` from there, and is read again from there elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssl_bench import registry
from ssl_bench.recipes.recipe_file import read_recipe_file
from ssl_bench.records.reading import read_record
from ssl_bench.records.recipe import DataPart, Recipe
from ssl_bench.runs.plain_names import command_line
from ssl_bench.settings import DATA_PATH, parse_settings
from ssl_bench.system.paths import absolute_path, expanded_path, portable_path, portable_text
from tests.conftest import Command
from tests.datasets.test_voc import write_voc
from tests.davis_files import moving_square, write_davis
from tests.toy import write_image_folder

SMALL = [
    f"--set={text}"
    for text in ("backbone.depth=1", "backbone.dim=32", "backbone.heads=2", "training.precision=fp32",
                 "training.batch_size=4", "evaluators.knn.neighbors=[1]", "evaluators.knn.reported=1")
]  # fmt: skip


@pytest.mark.parametrize("variable", ["SSLBENCH_DATA", "HOME"])
def test_a_run_names_nobodys_folders_and_goes_on_elsewhere(
    variable: str, sslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, moved = tmp_path / "alice/sets", tmp_path / "bob/data"
    write_image_folder(root / "birds", train=6, test=3)
    write_image_folder(root / "cars", train=4, test=2)
    write_voc(root)
    write_davis(root, {"walk": moving_square(3)})
    monkeypatch.setenv(variable, str(root))
    words = [
        "simclr", "--arch", "deit_ti16", "--data", root / "birds", "--eval-data", root / "cars",
        "--with", "knn,voc-jaccard,davis", "--voc", root, "--davis", root / "DAVIS", *SMALL,
    ]  # fmt: skip
    status, _, err = sslbench("run", *words, "--epochs", "1", "--run-id", "first")
    assert status == 0, err
    start = sslbench("run", *words, "--epochs", "1", "--run-id", "second", "--init", "first")
    assert start[0] == 0, start[2]

    prefix = "~" if variable == "HOME" else "$SSLBENCH_DATA"
    for path in Path("results/runs").rglob("*"):
        if path.suffix in (".json", ".toml"):
            text = path.read_text()
            assert path.name == "record.json" or str(root) not in text, path
            if path.name in ("record.json", "recipe.toml"):
                assert f"{prefix}/cars" in text
    record = read_record(Path("results/runs/first/record.json"))
    assert str(root) not in record.model_dump_json(), "wherever it stands"
    recipe = Recipe.model_validate(record.recipe)
    assert recipe.data.path == str(root / "birds"), "absolute in memory"
    file = read_recipe_file(Path("results/runs/first/recipe.toml"))
    assert file.data == f"image-folder:{prefix}/birds"

    root.parent.rename(tmp_path / "bob")
    (tmp_path / "bob/sets").rename(moved)
    monkeypatch.setenv(variable, str(moved))
    status, _, err = sslbench("run", "--recipe", "results/runs/first/recipe.toml", "--dry-run")
    assert status == 0, err
    status, _, err = sslbench("eval", "first", "--with", "voc-jaccard", "--set", "evaluators.voc-jaccard.keep_mass=0.5")
    assert status == 0, err
    monkeypatch.delenv(variable)
    if variable == "SSLBENCH_DATA":
        status, _, err = sslbench("run", "--recipe", "results/runs/first/recipe.toml")
        assert status == 2
        assert "SSLBENCH_DATA is not set" in err
        assert "Traceback" not in err


def test_every_plugins_path_is_portable_in_what_it_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSLBENCH_DATA", str(tmp_path))
    found = set()
    for kind in ("evaluator", "backbone", "dataset", "method"):
        for name in registry.names(kind):
            model = registry.find(kind, name).load().Config
            if DATA_PATH in model.model_fields:
                required = {key: "x" for key, field in model.model_fields.items() if field.is_required()}
                config = parse_settings(model, required | {DATA_PATH: "$SSLBENCH_DATA/set"}, kind, name)
                assert getattr(config, DATA_PATH) == str(tmp_path / "set"), name
                assert config.model_dump(mode="json")[DATA_PATH] == "$SSLBENCH_DATA/set", name
                found.add(name)
    assert found >= {"voc-jaccard", "davis"}


def test_a_path_there_and_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "home/sets"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SSLBENCH_DATA", f"{root}/")
    kept = {root / "a": "$SSLBENCH_DATA/a", root: "$SSLBENCH_DATA", home / "b": "~/b", home: "~"}
    for path, text in kept.items():
        assert portable_path(str(path)) == text
        assert Path(absolute_path(text)) == Path(expanded_path(text)) == path
    for path in (tmp_path / "home2/a", tmp_path / "home/setsb"):
        assert "SSLBENCH_DATA" not in portable_path(str(path))
        assert absolute_path(portable_path(str(path))) == str(path)
    for name in ("birds", "timm:vit_tiny", "$SSLBENCH_DATABASE/x", "a/~/b", "relative/set"):
        assert portable_path(name) == expanded_path(name) == name
    for useless in ("/", "", "sets"):  # no folder that would shorten a path, or one that depends on where one stands
        monkeypatch.setenv("SSLBENCH_DATA", useless)
        assert portable_path("/data/birds") == "/data/birds"
        assert portable_path("sets/birds") == "sets/birds"


def test_paths_within_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/al")
    monkeypatch.setenv("SSLBENCH_DATA", "/data")
    given = "--data=/data/x image-folder:/data '/home/al/y' /home/alice /mnt/data/z /data.old x/data"
    assert portable_text(given) == (
        "--data=$SSLBENCH_DATA/x image-folder:$SSLBENCH_DATA '~/y' /home/alice /mnt/data/z /data.old x/data"
    )


def test_a_recorded_command_leaves_out_where_results_lie() -> None:
    words = ["run", "dino", "--results", "/scratch/al/r", "--arch", "deit_s16", "--results=/x", "--set", "a=--results"]
    assert command_line(words) == "sslbench run dino --arch deit_s16 --set a=--results"
    assert command_line(["run", "dino", "--results"]) == "sslbench run dino"


def test_without_the_variable_a_record_is_read_and_its_data_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSLBENCH_DATA", raising=False)
    part = DataPart(
        name="birds", settings={}, plugin="image-folder", path="$SSLBENCH_DATA/birds", fingerprint="0", image_px=32
    )
    assert part.model_dump()["path"] == "$SSLBENCH_DATA/birds"
    assert part.reference == "image-folder:$SSLBENCH_DATA/birds"
    with pytest.raises(ValueError, match="SSLBENCH_DATA is not set"):
        absolute_path(part.path or "")
