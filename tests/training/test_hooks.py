"""What a method may add to the loop: a pass before step 0, views drawn over the batch, parts that never move."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, Progress, StepOutput
from ssl_bench.registry.preflight import wrong_frozen, wrong_hook
from ssl_bench.runs.precision import first_step
from ssl_bench.training.checkpoint import load_latest
from ssl_bench.training.loop import Stopped, train
from ssl_bench.training.state import TrainingState, restore
from tests.toy import ToyBackbone, ToyDataset, ToyMethod, make_plan


class Hooked(ToyMethod):
    """Remembers every image, masks some of the batch, and reads a frozen tokenizer with batch norm."""

    frozen = frozenset({"tokenizer"})

    def __init__(self, config: Any, make_backbone: Any) -> None:
        super().__init__(config, make_backbone)
        self.tokenizer = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6)).requires_grad_(False)
        self.register_buffer("memory", torch.zeros(48))
        self.prepared: list[list[int]] = []

    @classmethod
    def batch_views(cls, config: Any, views: Any, rng: Random) -> Any:
        chosen = rng.sample(range(len(views[0])), 2)
        return *views, torch.tensor([float(row in chosen) for row in range(len(views[0]))])

    def prepare(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            self.prepared.append(batch.index.tolist())
            self.memory[batch.index] = batch.views[0].mean(dim=(1, 2, 3))

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        difference = (self.student(batch.views[0]) - self.tokenizer(batch.views[0])).square().mean(dim=1)
        return StepOutput(
            output.loss + (difference * batch.views[2]).mean() + self.memory[batch.index].mean() * output.loss,
            output.logs,
            output.carry,
        )


def start(folder: Path, workers: int = 0, kind: type[ToyMethod] = Hooked) -> Any:
    torch.manual_seed(1)
    settings = ToyMethod.Config()
    method = kind(settings, lambda drop_path=0.0: ToyBackbone())
    optimizer_settings = OptimizerSettings(base_lr=0.1, warmup_epochs=1)
    optimizer = build_optimizer(optimizer_settings, method.parameter_groups())
    folder.mkdir(exist_ok=True)
    plan = make_plan(ToyDataset().train, folder, optimizer_settings, batch_size=5, epochs=2, seed=7, workers=workers)
    return method, kind.make_views(settings), optimizer, plan


def test_prepare_sees_every_image_once_in_order_before_the_first_step(tmp_path: Path) -> None:
    method, views, optimizer, plan = start(tmp_path)
    memory_at_start: list[Tensor] = []
    train(
        method, views, optimizer, plan, TrainingState(),
        after_step=lambda step: memory_at_start.append(method.memory.clone()),
    )  # fmt: skip
    assert [len(indices) for indices in method.prepared] == [5] * 9 + [3]
    assert [index for indices in method.prepared for index in indices] == list(range(48))
    assert memory_at_start[0].all()


def test_the_trial_of_a_first_step_prepares_on_one_batch_and_leaves_no_trace(tmp_path: Path) -> None:
    method, views, _, plan = start(tmp_path)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    batch = next(plan.batches(method, views))
    assert torch.isfinite(first_step(method, batch, plan, "fp32").loss)
    assert method.prepared == [batch.index.tolist()]
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_stopped_and_resumed_is_bitwise_the_uninterrupted_run_and_prepares_no_second_time(tmp_path: Path) -> None:
    method, views, optimizer, plan = start(tmp_path / "whole")
    train(method, views, optimizer, plan, TrainingState())
    cut, views, cut_optimizer, cut_plan = start(tmp_path / "cut", workers=2)

    def interrupt(report: Any) -> None:
        if report.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        train(cut, views, cut_optimizer, cut_plan, TrainingState(), report=interrupt)
    resumed, views, resumed_optimizer, _ = start(tmp_path / "cut")
    saved = load_latest(tmp_path / "cut" / "checkpoints")
    assert saved is not None
    train(resumed, views, resumed_optimizer, cut_plan, restore(resumed, resumed_optimizer, saved))
    assert resumed.prepared == []
    for name, value in method.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_what_is_drawn_over_a_batch_is_a_function_of_seed_epoch_and_step(tmp_path: Path) -> None:
    method, views, _, plan = start(tmp_path)
    masks = [batch.views[2].tolist() for batch in plan.batches(method, views)]
    for epoch, step in ((0, 0), (0, 8), (1, 9), (1, 17)):
        chosen = Random(f"batch-7-{epoch}-{step}").sample(range(5), 2)
        assert masks[step] == [float(row in chosen) for row in range(5)]
    assert [batch.views[2].tolist() for batch in plan.batches(method, views, first_step=11)] == masks[11:]
    _, _, _, with_workers = start(tmp_path, workers=2)
    assert [batch.views[2].tolist() for batch in with_workers.batches(method, views)] == masks


def test_a_frozen_part_stays_bitwise_as_it_is(tmp_path: Path) -> None:
    method, views, optimizer, plan = start(tmp_path)
    before = {name: value.clone() for name, value in method.tokenizer.state_dict().items()}
    train(method, views, optimizer, plan, TrainingState())
    assert all(torch.equal(value, before[name]) for name, value in method.tokenizer.state_dict().items())
    assert not any(module.training for module in method.tokenizer.modules())
    assert method.student.training
    assert wrong_frozen(method) == ""


def test_what_is_declared_frozen_must_be_there_and_untrained(tmp_path: Path) -> None:
    method = start(tmp_path)[0]
    method.tokenizer[1].weight.requires_grad_(True)
    assert "'tokenizer' as frozen, and tokenizer.1.weight requires a gradient" in wrong_frozen(method)
    method.frozen = frozenset({"tokenzier"})
    assert "has no such submodule. Did you mean 'tokenizer'?" in wrong_frozen(method)


def test_a_prepare_that_raises_in_the_middle_is_one_message(tmp_path: Path) -> None:
    class Raises(Hooked):
        def prepare(self, batches: Iterable[Batch]) -> None:
            for batch in batches:
                if 20 in batch.index:
                    raise KeyError("vocabulary")

    method, views, optimizer, plan = start(tmp_path, kind=Raises)
    with pytest.raises(
        UserError, match=r"prepare\(\) of Raises fails: KeyError: 'vocabulary'.*resume with: sslbench run"
    ):
        train(method, views, optimizer, plan, TrainingState())


@pytest.mark.parametrize("made", [None, [torch.zeros(5)], (torch.zeros(5), 3)])
def test_batch_views_that_are_no_tensors_are_one_message(tmp_path: Path, made: Any) -> None:
    class Odd(Hooked):
        @classmethod
        def batch_views(cls, config: Any, views: Any, rng: Random) -> Any:
            return made

    method, views, _, plan = start(tmp_path, kind=Odd)
    with pytest.raises(UserError, match=r"batch_views\(\) of the method gives .*return a tuple of tensors"):
        next(plan.batches(method, views))


def no_batches(self: Any) -> None: ...
def plain_batch_views(self: Any, config: Any, views: Any, rng: Any) -> Any: ...
def step_with_epoch(self: Any, batch: Any, epoch: Any, progress: Any) -> Any: ...


@pytest.mark.parametrize(
    ("name", "written", "said"),
    [
        ("prepare", no_batches, "has prepare(self: 'Any') -> 'None', which is not how it is called"),
        ("batch_views", plain_batch_views, "write @classmethod def batch_views(cls, config, views, rng)"),
        ("networks", property(lambda self: {}), "has networks as a property: write def networks(self)"),
        ("step", step_with_epoch, "write def step(self, batch, progress)"),
    ],
)
def test_a_hook_with_a_wrong_signature_is_found(name: str, written: Any, said: str) -> None:
    assert said in wrong_hook(type("Wrong", (Hooked,), {name: written}), "Method")
    assert wrong_hook(Hooked, "Method") == ""
    assert wrong_hook(type("Static", (Hooked,), {"make_views": staticmethod(lambda config: None)}), "Method") == ""
