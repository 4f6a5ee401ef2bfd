"""`sslbench run --init`: from a run to the next one, stopped and resumed, evaluated, tabulated and replayed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ssl_bench.training import loop
from tests.conftest import Command
from tests.end_to_end.test_end_to_end import SMALL, interrupt_at_step_3
from tests.toy import write_image_folder

ARGUMENTS = ("run", "dino", *SMALL, "--epochs", "1", "--with", "knn")


@pytest.fixture
def first(sslbench: Command, tmp_path: Path) -> Path:
    """A finished run called `first`, of the image folder `tints`."""
    data = write_image_folder(tmp_path / "tints", train=20, test=10, px=16)
    status, out, err = sslbench(*ARGUMENTS, "--data", data, "--run-id", "first")
    assert status == 0, out + err
    return tmp_path / "results" / "runs" / "first"


def test_a_run_starts_from_another_stops_resumes_and_stands_beside_it(
    sslbench: Command, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = (*ARGUMENTS, "--data", str(tmp_path / "tints"), "--seed", "1")
    before: list[bool] = []
    train = loop.train

    def look(method, *rest, **more):  # type: ignore[no-untyped-def]
        if not before:
            kept = load_file(first / "weights.safetensors")
            for network in method.networks().values():
                before.append(all(torch.equal(kept[name], one) for name, one in network.state_dict().items()))
        return train(method, *rest, **more)

    monkeypatch.setattr("ssl_bench.runs.runner.train", look)
    status, out, err = sslbench(*second, "--init", "first", "--run-id", "whole")
    assert status == 0, out + err
    assert before == [True, True]  # teacher and student
    assert "knn of the pretrained network" in out
    assert "untrained" not in out

    with monkeypatch.context() as patch:
        patch.setattr("ssl_bench.runs.display.TerminalDisplay.step", interrupt_at_step_3)
        assert sslbench(*second, "--init", first / "weights.safetensors", "--run-id", "cut")[0] == 130
    runs = first.parent
    moved = first.rename(tmp_path / "moved")
    status, _, err = sslbench("run", "--resume", runs / "cut")
    assert status == 2
    assert "first is not there" in err or "weights.safetensors does not exist" in err
    status, out, err = sslbench("run", "--resume", runs / "cut", "--init", moved)
    assert status == 0, out + err
    one, other = (load_file(runs / name / "weights.safetensors") for name in ("whole", "cut"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    records = {name: json.loads((runs / name / "record.json").read_text()) for name in ("whole", "cut")}
    assert records["whole"]["digest"] == records["cut"]["digest"]
    assert {e["subject"] for e in records["whole"]["evaluations"]} == {"pretrained", "trained"}
    assert records["whole"]["backbone"]["pretrained"].startswith("first (teacher), sha256 ")

    status, out, err = sslbench("eval", "whole", "--with", "knn", "--set", "evaluators.knn.temperature=0.2")
    assert status == 0, err
    assert "the network before training is left out" in out  # its weights are not where they were
    moved.rename(first)
    status, out, err = sslbench("eval", "whole", "--with", "knn", "--set", "evaluators.knn.temperature=0.2")
    assert status == 0, err
    assert re.search(r"^ *knn +pretrained +top1", out, re.MULTILINE)
    (written,) = (runs / "whole" / "evaluations").glob("knn-pretrained-*.json")
    assert not list((runs / "whole" / "evaluations").glob("knn-untrained-*.json"))
    written.rename(written.with_name(written.name.replace("pretrained", "untrained")))  # as earlier versions called it
    status, out, err = sslbench("eval", "whole", "--with", "knn", "--set", "evaluators.knn.temperature=0.2")
    assert (status, "knn of the pretrained network was done before" in out) == (0, True), out + err
    status, out, err = sslbench("show", "whole")
    assert (status, "untrained" in out.replace("untrained network only", "")) == (0, False), err
    status, out, err = sslbench("table")
    assert f"initial=teacher, sha256 {records['whole']['recipe']['initial']['fingerprint'][:12]}" in out
    recipe = runs / "whole" / "recipe.toml"
    status, replayed, err = sslbench("run", "--recipe", recipe, "--dry-run")
    assert (status, replayed) == (0, recipe.read_text()), err


def test_what_does_not_fit_or_changed_is_one_message_and_nothing_is_written(
    sslbench: Command, first: Path, tmp_path: Path
) -> None:
    data = str(tmp_path / "tints")
    wider = [word.replace("backbone.dim=32", "backbone.dim=64") for word in SMALL]
    status, _, err = sslbench("run", "dino", *wider, "--data", data, "--init", "first")
    assert status == 2
    assert "They are those of --arch deit_ti16 --set backbone.patch_px=8 --set backbone.depth=1" in err
    status, _, err = sslbench(*ARGUMENTS, "--data", data, "--init", "first", "--set", "backbone.heads=2")
    assert status == 2
    assert "are of a network with 1 heads, and deit_ti16 has 2: the shapes agree" in err
    assert "Evidence: the run's recipe. Say --set backbone.heads=1" in err
    status, _, err = sslbench(*ARGUMENTS, "--data", data, "--init", "frist")
    assert (status, "Did you mean 'first'" in err) == (2, True)

    copy = tmp_path / "copy.safetensors"
    shutil.copy(first / "weights.safetensors", copy)
    status, recipe, err = sslbench(*ARGUMENTS, "--data", data, "--init", copy, "--dry-run")
    assert status == 0, err
    (tmp_path / "r.toml").write_text(recipe)
    weights = load_file(copy)
    weights["network.norm.bias"] += 1
    save_file(weights, copy)
    status, _, err = sslbench("run", "--recipe", tmp_path / "r.toml")
    assert (status, "copy.safetensors changed" in err) == (2, True)
    status, _, err = sslbench("run", "--recipe", tmp_path / "r.toml", "--init", copy, "--dry-run")
    assert status == 0, err
    assert [run.name for run in first.parent.iterdir()] == ["first"]


def test_initial_weights_alone_are_evaluated_without_training(sslbench: Command, first: Path, tmp_path: Path) -> None:
    """The method `random` with --init: the kept network's own accuracy, called pretrained."""
    words = [*SMALL[:4], "--set", "backbone.depth=1", "--set", "backbone.dim=32", "--set", "backbone.patch_px=8"]
    status, out, err = sslbench(
        "run", "random", *words, "--data", tmp_path / "tints", "--with", "knn", "--init", "first", "--run-id", "again"
    )
    assert status == 0, out + err
    record, again = (json.loads((first.parent / n / "record.json").read_text()) for n in ("first", "again"))
    trained = [e["measurements"] for e in record["evaluations"] if e["subject"] == "trained"]
    assert [e["measurements"] for e in again["evaluations"] if e["subject"] == "pretrained"] == trained
