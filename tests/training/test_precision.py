"""fp16: scaling changes no gradient, an overflow moves nothing, an endless one ends the run, and resuming."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_bench import registry
from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer
from ssl_bench.method import Batch, Method, Progress, StepOutput
from ssl_bench.testing.method_bench import MIDDLE, Subject, progress_at
from ssl_bench.training.checkpoint import load_latest
from ssl_bench.training.collapse_doctor import RunFailed
from ssl_bench.training.loop import StepReport, Stopped, train
from ssl_bench.training.metrics_log import logged_steps
from ssl_bench.training.micro_batches import Passes, add_gradients
from ssl_bench.training.precision import AUTOCAST_DTYPES, MOST_OVERFLOWS, LossScaling, ScalingState
from ssl_bench.training.state import TrainingState, restore
from ssl_bench.training.step import training_step
from tests.methods import INSTALLED
from tests.toy import ToyBackbone, ToyDataset, ToyMethod, make_plan

CPU = torch.device("cpu")


class Overflowing(ToyMethod):
    """Gradients overflow at some steps; it counts its updates."""

    at: frozenset[int] = frozenset()

    def __init__(self, config: Any, make_backbone: Any) -> None:
        super().__init__(config, make_backbone)
        self.register_buffer("updates", torch.zeros(()))

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        factor = float("inf") if progress.step in self.at else 1.0
        return StepOutput(output.loss * factor, output.logs, output.carry)

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        super().update(carry, progress)
        self.updates += 1


def start(folder: Path, *, at: frozenset[int] = frozenset(), dtype: torch.dtype = torch.float16, **changes: Any) -> Any:
    torch.manual_seed(1)
    method = Overflowing(ToyMethod.Config(), lambda drop_path=0.0: ToyBackbone())
    method.at = at
    settings = OptimizerSettings(base_lr=0.05, warmup_epochs=0)
    folder.mkdir(exist_ok=True)
    plan = make_plan(
        ToyDataset(count=30).train, folder, settings, batch_size=6, seed=3, autocast_dtype=dtype,
        **({"epochs": 2} | changes),
    )  # fmt: skip
    return method, ToyMethod.make_views(ToyMethod.Config()), build_optimizer(settings, method.parameter_groups()), plan


def test_the_names_are_those_of_the_setting() -> None:
    from ssl_bench.records.recipe import TrainingSettings

    for name in AUTOCAST_DTYPES:
        assert TrainingSettings(precision=name).precision == name  # type: ignore[arg-type]


def test_an_overflow_moves_nothing_halves_the_scale_and_is_counted(tmp_path: Path) -> None:
    method, views, optimizer, plan = start(tmp_path, at=frozenset({4}))
    seen: list[dict[str, Tensor]] = []
    state = train(
        method, views, optimizer, plan, TrainingState(),
        after_step=lambda step: seen.append({n: t.clone() for n, t in method.state_dict().items()}),
    )  # fmt: skip
    assert any("running_" in name for name in seen[3])
    assert all(torch.equal(seen[3][name], seen[4][name]) for name in seen[3]), "batch norm's statistics included"
    assert not torch.equal(seen[4]["student.layers.1.weight"], seen[5]["student.layers.1.weight"])
    assert method.updates == plan.total_steps - 1
    scaling = state.scaling
    assert (scaling.scale, scaling.skipped_steps, scaling.overflows_in_a_row) == (2.0**15, 1, 0)
    rows = list(logged_steps(tmp_path))
    assert [row["loss_scale"] for row in rows] == [2.0**16] * 4 + [2.0**15] * 6
    assert "gradient_norm" not in rows[4]
    assert all(torch.isfinite(torch.tensor(value)) for value in state.final_logs.values())


def test_gradients_are_unscaled_before_the_method_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """float64 and no autocast around it: the scale is a power of 2, so both ways are bitwise the same."""
    found = []
    for enabled in (False, True):
        method, views, optimizer, plan = start(tmp_path, dtype=torch.float16, micro_batch=4)
        monkeypatch.setattr(Passes, "autocast", lambda self: torch.autocast("cpu", enabled=False))
        gradients: list[Tensor] = []
        monkeypatch.setattr(
            method, "before_optimizer",
            lambda progress, method=method, gradients=gradients: gradients.extend(
                p.grad.clone() for p in method.parameters() if p.grad is not None
            ),
        )  # fmt: skip
        batch = next(plan.batches(method, views))
        scaling = LossScaling(CPU, torch.float16 if enabled else None, ScalingState(scale=2.0**10))
        logs = training_step(method, optimizer, batch, Progress(0, 10, 0, 2), plan, scaling)
        found.append((logs["gradient_norm"], gradients))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_an_endless_overflow_ends_the_run_with_words(tmp_path: Path) -> None:
    method, views, optimizer, plan = start(tmp_path, at=frozenset(range(2, 99)), epochs=9)
    state = TrainingState()
    with pytest.raises(RunFailed, match=rf"overflow in fp16 at {MOST_OVERFLOWS} steps in a row.*precision=fp32") as end:
        train(method, views, optimizer, plan, state)
    assert end.value.status == "failed"
    assert method.updates == 2


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_stopped_and_resumed_is_bitwise_the_uninterrupted_run(tmp_path: Path, micro_batch: int | None) -> None:
    given: dict[str, Any] = {"at": frozenset({1, 3}), "micro_batch": micro_batch}
    method, views, optimizer, plan = start(tmp_path / "whole", **given)
    whole = train(method, views, optimizer, plan, TrainingState())
    cut, views, cut_optimizer, cut_plan = start(tmp_path / "cut", **given)

    def interrupt(report: StepReport) -> None:
        if report.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        train(cut, views, cut_optimizer, cut_plan, TrainingState(), report=interrupt)
    again, views, again_optimizer, again_plan = start(tmp_path / "cut", **given)
    saved = load_latest(tmp_path / "cut" / "checkpoints")
    assert saved is not None
    state = restore(again, again_optimizer, saved)
    assert state.scaling.overflows_in_a_row >= 1
    train(again, views, again_optimizer, again_plan, state)
    assert state.scaling == whole.scaling
    ours, theirs = method.state_dict(), again.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_the_scale_doubles_after_enough_steps_without_overflow_across_a_resume() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    state = ScalingState(scale=8.0, steps_without_overflow=1998)
    scaling = LossScaling(CPU, torch.float16, state)
    for expected in (8.0, 16.0):
        scaling.scale(weight.square().sum()).backward()
        scaling.unscale(optimizer)
        assert scaling.step(optimizer)
        assert state.scale == expected


def loss_and_gradient(method: Method, batch: Batch, dtype: torch.dtype | None) -> tuple[float, Tensor]:
    passes = Passes(CPU, "precision", autocast_dtype=dtype)
    output = add_gradients(method, batch, progress_at(MIDDLE), passes)
    assert output.loss.dtype == torch.float32
    assert all(bool(torch.isfinite(value).all()) for value in (*output.logs.values(), *output.carry.values()))
    gradient = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
    return float(output.loss), gradient


@pytest.mark.parametrize("name", [name for name in INSTALLED if name != "random"])
def test_every_method_is_close_to_fp32_in_fp16_and_bf16(name: str) -> None:
    bench = Subject(registry.method(name), {}).working[0]
    exact, direction = loss_and_gradient(bench.build(), bench.batch(), None)
    for dtype, loss_off, least_cosine in ((torch.float16, 0.005, 0.99), (torch.bfloat16, 0.03, 0.97)):
        loss, gradient = loss_and_gradient(bench.build(), bench.batch(), dtype)
        assert bool(torch.isfinite(gradient).all())
        assert loss == pytest.approx(exact, rel=loss_off, abs=loss_off)
        assert float(torch.nn.functional.cosine_similarity(gradient, direction, dim=0)) > least_cosine
