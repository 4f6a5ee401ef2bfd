"""Collapse forced on the real methods: the run ends, says the sign and the setting, and never becomes a number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from ssl_bench.runs.building import build_method
from ssl_bench.training.checkpoint import checkpoints
from ssl_bench.training.collapse_doctor import RunFailed
from ssl_bench.training.loop import train
from ssl_bench.training.state import TrainingState
from tests.conftest import Command
from tests.end_to_end.test_end_to_end import data, only_run  # noqa: F401
from tests.toy import make_plan

NARROW = {"backbone.depth": 1, "backbone.dim": 32, "backbone.patch_px": 8, "training.batch_size": 8}
NARROW |= {"training.precision": "fp32", "optimizer.warmup_epochs": 0}
HEAD = {"method.out_dim": 16, "method.hidden_dim": 16, "method.bottleneck_dim": 8, "method.local_views": 0}
HEAD |= {"method.head_batch_norm": False, "optimizer.base_lr": 0.02}
FLAT = {"method.teacher_temperature": 0.1, "method.teacher_temperature_start": 0.1}


def arguments(values: dict[str, Any]) -> list[str]:
    return ["--arch", "deit_ti16", *(word for key, value in values.items() for word in ("--set", f"{key}={value}"))]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method.assignment": "softmax"}, ("scores_used 1", "one score wins", "--set method.assignment=centering")),
        (FLAT, ("teacher_entropy 2.7", "kl 0.0", "all scores are equal", "method.teacher_temperature")),
    ],
    ids=["no centering", "no sharpening"],
)
def test_dino_without_one_of_its_two_safeguards_collapses_as_in_figure_7(
    sslbench: Command,
    data: Path,  # noqa: F811
    tmp_path: Path,
    values: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    status, out, _ = sslbench(
        "run", "dino", *arguments(NARROW | HEAD | values), "--data", str(data), "--epochs", "80", "--with", "knn",
        "--set", "machine.checkpoint_minutes=0.0001",
    )  # fmt: skip
    assert status == 1
    for word in words:
        assert word in out
    assert "warning   signs of a collapse" in out
    run = only_run(tmp_path)
    record = json.loads((run / "record.json").read_text())
    assert record["status"] == "collapsed"
    assert words[1] in record["status_reason"]
    assert {evaluation["subject"] for evaluation in record["evaluations"]} == {"untrained"}
    assert not (run / "weights.safetensors").exists()
    kept = [path.name for path in checkpoints(run / "checkpoints")]
    assert len([name for name in kept if not name.endswith("-suspect")]) == 1
    assert f"Last good checkpoint: checkpoints/{kept[0]}" in out
    assert record["training"]["steps"] < 400
    assert words[1] in sslbench("show", run.name)[1]
    assert "collapsed" in sslbench("table")[1]


def training(method: str, folder: Path, images: Path, epochs: int, **values: Any) -> tuple[Any, ...]:
    settings = NARROW | {"training.epochs": epochs} | values
    resolved = resolve(Request(method=method, arch="deit_ti16", data=str(images), values=settings))
    recipe = resolved.recipe
    torch.manual_seed(0)
    built = build_method(resolved)
    optimizer = OptimizerSettings(**recipe.optimizer)
    plan = make_plan(resolved.dataset.train, folder, optimizer, batch_size=recipe.training.batch_size, epochs=epochs)
    return built, built.make_views(resolved.method_config), optimizer, plan


def test_byol_without_predictor_and_with_the_online_network_as_target_collapses(
    data: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    alone = {"method.target_momentum": 0.0, "method.hidden_dim": 32, "optimizer.base_lr": 0.05}
    method, views, settings, plan = training("byol", tmp_path, data, 60, **alone)
    identity = nn.Linear(128, 128, bias=False)
    nn.init.eye_(identity.weight)
    method.predictor = nn.Sequential(nn.Identity(), nn.Identity(), nn.Identity(), identity).requires_grad_(False)
    sign = r"target_spread 0\.\d+ .*gives every image the same projection.*target_momentum"
    with pytest.raises(RunFailed, match=sign) as end:
        train(method, views, build_optimizer(settings, method.parameter_groups()), plan, TrainingState())
    assert end.value.status == "collapsed"


@pytest.mark.parametrize(("batch_size", "epochs"), [(2, 6), (8, 24)])
@pytest.mark.parametrize("name", ["dino", "byol", "mocov2", "swav", "simclr", "supervised"])
def test_a_healthy_run_has_no_sign_that_lasts_even_on_tiny_batches_and_widths(
    name: str,
    batch_size: int,
    epochs: int,
    data: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    values: dict[str, Any] = {"training.batch_size": batch_size, "backbone.dim": 8 if batch_size == 2 else 32}
    if name == "dino":
        values |= {"method.out_dim": 64, "method.hidden_dim": 16, "method.bottleneck_dim": 8}
    method, views, settings, plan = training(name, tmp_path, data, epochs, **values)
    assert plan.total_steps == 120
    said: list[str] = []
    optimizer = build_optimizer(settings, method.parameter_groups())
    train(method, views, optimizer, plan, TrainingState(), lambda report: said.append(report.warning))
    assert len(said) == 120
    assert not any(said)
