"""No damage to run.json, record.json, an evaluation or recipe.toml is accepted where a value changes.

SSLBENCH_FLIPS and SSLBENCH_MUTATIONS set how many single-bit flips and structural changes of each file are tried.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from ssl_bench.records.cost import SpeedRecord
from ssl_bench.records.reading import read_all, read_evaluation, read_record
from ssl_bench.records.recipe import MachineSettings, Recipe
from ssl_bench.records.record import SCHEMA_VERSION, DataRecord, write_record
from ssl_bench.records.state_file import sealed
from ssl_bench.runs.state import BeforeTraining, RunState, read_run_state, write_run_state
from tests.example_records import evaluation, evaluations, make_record, measured
from tests.mutations import bit_flips, json_mutations, toml_mutations
from tests.toy import write_image_folder

FLIPS = int(os.environ.get("SSLBENCH_FLIPS", "120"))
MUTATIONS = int(os.environ.get("SSLBENCH_MUTATIONS", "120"))


def run_state() -> RunState:
    record = make_record()
    return RunState(
        recipe=Recipe.model_validate(record.recipe),
        digest=record.digest,
        machine=MachineSettings(),
        data=DataRecord(**record.data.model_dump()),
        preset=record.preset,
        preset_reason=record.preset_reason,
        started_utc=record.started_utc,
        before_training=BeforeTraining(
            precision="fp32",
            precision_reason="asked for",
            threads=2,
            speed=SpeedRecord(inference_images_per_second=503.25),
            untrained=evaluations((26.0, 26.0))[:1],
        ),
    )


def write_state(path: Path) -> None:
    write_run_state(path.parent, run_state())


FILES: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "run.json": (write_state, lambda path: read_run_state(path.parent)),
    "record.json": (lambda path: write_record(make_record(), path), read_record),
    "evaluation.json": (lambda path: write_record(evaluation("knn", "trained", measured(45.8)), path), read_evaluation),
}


def accepted(path: Path, damaged: Iterable[bytes], read: Callable[[Path], Any]) -> list[tuple[bytes, Any]]:
    """What reading gives for each damaged content that is not refused with one message."""
    found, messages = [], []
    for content in damaged:
        path.write_bytes(content)
        try:
            found.append((content, read(path)))
        except UserError as error:
            messages.append(str(error))
    named = (path.name, "no method given")  # a recipe cut before its first section holds nothing
    assert [text for text in messages if "\n" in text or not any(word in text for word in named)] == []
    return found


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flips", "mutations"])
def test_damage_is_refused_or_changes_nothing(tmp_path: Path, name: str, damage: str) -> None:
    write, read = FILES[name]
    path = tmp_path / name
    write(path)
    content, whole = path.read_bytes(), read(path)
    damaged = bit_flips(content, FLIPS, 0) if damage == "flips" else json_mutations(content, MUTATIONS, 0)
    assert [text for text, value in accepted(path, damaged, read) if value != whole] == []


@pytest.mark.parametrize("damage", ["flips", "mutations"])
def test_damage_to_a_recipe_is_refused_or_changes_nothing(tmp_path: Path, damage: str) -> None:
    data = write_image_folder(tmp_path / "tints", train=8, test=2, px=32)
    recipe = resolve(Request(method="byol", arch="resnet18", data=str(data), values={"training.batch_size": 8})).recipe
    content, path = recipe.to_toml().encode(), tmp_path / "recipe.toml"

    def read(file: Path) -> str:
        return resolve(Request(recipe_file=file, preset="none")).recipe.digest

    path.write_bytes(content)
    whole = read(path)
    damaged = bit_flips(content, FLIPS, 0) if damage == "flips" else toml_mutations(content, MUTATIONS, 0)
    assert [text for text, digest in accepted(path, damaged, read) if digest != whole] == []


def test_an_edited_recipe_runs_without_its_checksum_line(tmp_path: Path) -> None:
    data = write_image_folder(tmp_path / "tints", train=8, test=2, px=32)
    recipe = resolve(Request(method="byol", arch="resnet18", data=str(data), values={"training.batch_size": 8})).recipe
    path = tmp_path / "recipe.toml"
    edited = recipe.to_toml().replace("seed = 0", "seed = 5")
    path.write_text(edited)
    with pytest.raises(UserError, match=r"was changed after it was written.*delete its first line"):
        resolve(Request(recipe_file=path, preset="none"))
    path.write_text(edited.partition("\n")[2])
    assert resolve(Request(recipe_file=path, preset="none")).recipe.training.seed == 5


def test_a_record_of_schema_1_is_read_without_a_fingerprint_and_one_of_schema_2_is_not(tmp_path: Path) -> None:
    content = json.loads(sealed(make_record()))
    del content["fingerprint"]
    path = tmp_path / "record.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="its fingerprint is missing"):
        read_record(path)
    del content["notes"]
    path.write_text(json.dumps(content | {"schema_version": 1}))
    assert read_record(path).model_copy(update={"schema_version": SCHEMA_VERSION}) == make_record()


@pytest.mark.parametrize(
    "odd",
    [
        {"seed": 10**400},
        {"training": make_record().training.model_dump() | {"seconds": float("nan")}},
        {"training": make_record().training.model_dump() | {"seconds": "NaN"}},
        {"training": make_record().training.model_dump() | {"seconds": 1e300}},
        {"command": "sslbench \udce9"},
        {"versions": json.loads('{"a":' * 300 + "1" + "}" * 300)},
        {"recipe": {"evaluators": 5}},
    ],
    ids=["huge", "nan", "nan as text", "long", "surrogate", "deep", "recipe"],
)
def test_one_odd_record_is_a_line_and_the_others_are_read(tmp_path: Path, odd: dict[str, Any]) -> None:
    write_record(make_record(), tmp_path / "runs" / "good" / "record.json")
    content = make_record().model_dump(mode="json") | odd | {"schema_version": 1}
    del content["notes"]
    path = tmp_path / "runs" / "odd" / "record.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    records, problems = read_all(tmp_path)
    assert [file.parent.name for file, _ in records] == ["good"]
    assert len(problems) == 1
    assert str(path) in problems[0]
