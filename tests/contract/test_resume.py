"""A stopped and resumed run is bitwise the uninterrupted one: every registered method, network kind, optimizer and
precision; a method registered later is covered by itself."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_bench import registry
from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import Resolved, resolve
from ssl_bench.runs.building import build_method
from ssl_bench.training.checkpoint import load_latest
from ssl_bench.training.loop import StepReport, Stopped, train
from ssl_bench.training.state import TrainingState, restore
from tests.methods import INSTALLED, WITH_SETTINGS
from tests.toy import make_plan, write_image_folder

NETWORKS: dict[str, dict[str, Any]] = {
    "deit_ti16": {"backbone.depth": 1, "backbone.dim": 32, "backbone.heads": 2, "backbone.patch_px": 8},
    "resnet18": {"backbone.width": 0.125},  # channels last: its moments are no contiguous tensors
}
METHODS = [name for name in INSTALLED if name != "random"]
CASES = [
    *(
        (method, *case)
        for method in METHODS
        for case in (("deit_ti16", "adamw", "bf16"), ("resnet18", "sgd", "fp32"), ("deit_ti16", "lars", "fp32"))
        if case[1] != "lars" or method in WITH_SETTINGS
    ),
    *(("simclr", "resnet18", optimizer, "fp32") for optimizer in ("adamw", "lars")),
    ("simclr", "resnet18", "sgd", "bf16"),
    ("simclr", "deit_ti16", "sgd", "fp32"),
]
"""Every method with every kind of network, every optimizer and both precisions; what no method has a part in, once."""
STOPS = (1, 3)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("data") / "tints", train=8, test=2, px=32)


def parts(resolved: Resolved, run_dir: Path, dtype: torch.dtype | None) -> Any:
    """A new method with its views, its optimizer and the plan, as the runner builds them."""
    torch.manual_seed(0)
    method, settings = build_method(resolved), OptimizerSettings(**resolved.recipe.optimizer)
    training = resolved.recipe.training
    run_dir.mkdir(exist_ok=True)
    plan = make_plan(
        resolved.dataset.train, run_dir, settings,
        batch_size=training.batch_size, epochs=training.epochs, seed=training.seed, autocast_dtype=dtype,
    )  # fmt: skip
    optimizer = build_optimizer(settings, method.parameter_groups())
    return method, method.make_views(resolved.method_config), optimizer, plan


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of an optimizer's state by its place."""
    state = optimizer.state_dict()["state"]
    return {f"{index}/{name}": value for index, values in state.items() for name, value in values.items()}


@pytest.mark.parametrize(("method", "arch", "optimizer", "precision"), CASES, ids=["-".join(case) for case in CASES])
def test_stopped_twice_and_resumed_is_bitwise_the_uninterrupted_run(
    images: Path, tmp_path: Path, method: str, arch: str, optimizer: str, precision: str
) -> None:
    values = NETWORKS[arch] | {"training.batch_size": 8, "training.epochs": 2}
    values |= {"optimizer.name": optimizer, "optimizer.base_lr": 0.05}
    if "local_views" in registry.method(method).Config.model_fields:
        values["method.local_views"] = 1  # bf16 convolutions are slow where the processor has none
    resolved = resolve(Request(method=method, arch=arch, data=str(images), values=values))
    dtype = torch.bfloat16 if precision == "bf16" else None
    whole, views, whole_optimizer, plan = parts(resolved, tmp_path / "whole", dtype)
    assert plan.total_steps > max(STOPS)
    train(whole, views, whole_optimizer, plan, TrainingState())

    state = TrainingState()
    for stop in (*STOPS, None):
        cut, views, cut_optimizer, cut_plan = parts(resolved, tmp_path / "cut", dtype)
        if saved := load_latest(tmp_path / "cut" / "checkpoints"):
            state = restore(cut, cut_optimizer, saved)
        if stop is None:
            train(cut, views, cut_optimizer, cut_plan, state)
        else:
            with pytest.raises(Stopped, match=f"stopped at step {stop} of"):
                train(cut, views, cut_optimizer, cut_plan, state, partial(interrupt_at, stop))
    assert (state.step, state.resumed) == (plan.total_steps, len(STOPS))

    one, other = whole.state_dict(), cut.state_dict()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    moments, others = moments_of(whole_optimizer), moments_of(cut_optimizer)
    assert moments.keys() == others.keys()
    assert moments
    assert [name for name in moments if not torch.equal(moments[name], others[name])] == []
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def interrupt_at(step: int, report: StepReport) -> None:
    if report.step == step:
        os.kill(os.getpid(), signal.SIGTERM)
