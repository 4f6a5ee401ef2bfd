"""A run done again from a record's recipe has the precision that "auto" became, whatever a measurement says now."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ssl_bench.errors import UserError
from ssl_bench.evaluation.speed import Timing
from ssl_bench.records.recipe import MachineSettings
from ssl_bench.runs import beginning, precision
from ssl_bench.runs.planned_step import asked_precision
from ssl_bench.runs.precision import Precision
from tests.conftest import Command
from tests.toy import write_image_folder

NETWORK = ("backbone.depth=1", "backbone.dim=32", "backbone.patch_px=8")
TINY = ("--arch", "deit_ti16", "--batch-size", "8", *(word for value in NETWORK for word in ("--set", value)))


def faster(monkeypatch: pytest.MonkeyPatch, cache: Path, name: str) -> None:
    """From now on a measurement shows that this precision is the faster one."""

    def one_pass(method: object, batch: object, plan: object, measured: str) -> Timing:
        return Timing(1.0 if measured == name else 2.0, 9.0)

    monkeypatch.setattr(precision, "_one_pass", one_pass)
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    monkeypatch.setenv("SSLBENCH_CACHE", str(cache))


def test_a_run_from_a_records_recipe(sslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_image_folder(tmp_path / "tints", train=8, test=4, px=16)

    def run(*words: str) -> dict[str, object]:
        status, out, err = sslbench("run", *words[:-1], "--run-id", words[-1])
        assert status == 0, out + err
        found: dict[str, object] = json.loads((tmp_path / "results" / "runs" / words[-1] / "record.json").read_text())
        return found

    faster(monkeypatch, tmp_path / "one", "bf16")
    first = run("supervised", *TINY, "--data", str(data), "--epochs", "1", "--with", "knn", "first")
    assert first["machine"]["precision"] == "bf16"  # type: ignore[index]
    faster(monkeypatch, tmp_path / "other", "fp32")
    recipe = ("--recipe", "results/runs/first/recipe.toml")
    again = run(*recipe, "again")
    measured = run(*recipe, "--set", "machine.auto_precision=measure", "measured")
    precisions = [record["machine"]["precision"] for record in (again, measured)]  # type: ignore[index]
    assert precisions == ["bf16", "fp32"]
    assert "an earlier run decided" in again["machine"]["precision_reason"]  # type: ignore[index]
    assert first["digest"] == again["digest"] == measured["digest"]


def test_a_recorded_precision_that_does_not_work_here_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def choose(name: str, *_: object) -> Precision:
        asked.append(name)
        if name == "bf16":
            raise UserError("it only emulates bf16")
        return Precision("fp32", "auto: bf16 is only emulated on this card", None)

    monkeypatch.setattr(beginning, "choose_precision", choose)
    settings = MachineSettings(auto_precision="bf16")
    recipe = SimpleNamespace(training=SimpleNamespace(precision="auto"))
    resolved = SimpleNamespace(recipe=recipe, machine=settings)
    assert asked_precision(resolved) == "bf16"  # type: ignore[arg-type]
    found = beginning.precision_of(resolved, torch.nn.Identity(), None, None)  # type: ignore[arg-type]
    assert asked == ["bf16", "auto"]
    assert found.name == "fp32"
    assert found.reason.endswith("bf16, as recorded, does not work here")
    resolved.recipe.training.precision = "fp32"  # asked for: the machine's setting does not matter
    beginning.precision_of(resolved, torch.nn.Identity(), None, None)  # type: ignore[arg-type]
    assert asked[-1] == "fp32"
