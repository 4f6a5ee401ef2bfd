"""Micro-batches: gradients by hand and by autograd in one piece, random numbers, batch norm, workers, resuming."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer
from ssl_bench.blocks.recompute import mean_of_parts
from ssl_bench.method import Batch, Progress, StepOutput
from ssl_bench.planning.live_memory import LiveMemory
from ssl_bench.training.checkpoint import load_latest
from ssl_bench.training.loop import StepReport, Stopped, train
from ssl_bench.training.micro_batches import Exactness, Passes, add_gradients, exactness
from ssl_bench.training.plan import Plan
from ssl_bench.training.state import TrainingState, restore
from tests.toy import ToyBackbone, ToyDataset, ToyMethod, make_plan

CPU = torch.device("cpu")
NOW = Progress(3, 10, 0, 1)


class Contrastive(ToyMethod):
    """Tells the images of a batch apart: a loss over the whole batch, with a parameter and a random draw of its own."""

    mean_over_images = False
    step = ToyMethod.__mro__[1].step  # made of embed and loss

    def __init__(self, config: Any, make_backbone: Any) -> None:
        super().__init__(config, make_backbone)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            teacher = self.teacher(batch.views[1])
        return {"student": self.student(batch.views[0]), "teacher": teacher, "index": batch.index}

    def loss(self, embeddings: Mapping[str, Tensor], progress: Progress) -> StepOutput:
        scores = self.scale * embeddings["student"] @ embeddings["teacher"].T
        loss = nn.functional.cross_entropy(scores, torch.arange(len(scores)))
        return StepOutput(loss, {"images": torch.tensor(float(len(scores)))}, {"teacher": embeddings["teacher"]})


def batch_of(images: int) -> Batch:
    generator = torch.Generator().manual_seed(3)
    return Batch(tuple(torch.randn(images, 3, 8, 8, generator=generator) for _ in range(2)), torch.arange(images))


def built(kind: type[ToyMethod], *, train_mode: bool = True) -> Any:
    torch.manual_seed(1)
    return kind(kind.Config(), lambda drop_path=0.0: ToyBackbone()).train(train_mode)


def gradients(method: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("images", "most", "sizes"), [(8, 3, [3, 3, 2]), (33, 32, [17, 16]), (4, 9, [4]), (4, 1, [1] * 4)]
)
def test_a_batch_is_split_as_evenly_as_possible(images: int, most: int, sizes: list[int]) -> None:
    whole = dataclasses.replace(batch_of(images), labels=torch.arange(images) % 3)
    parts = whole.split(most)
    assert [len(part.index) for part in parts] == sizes
    assert {part.step_images for part in parts} == ({None} if len(sizes) == 1 else {images})
    assert torch.equal(torch.cat([part.views[1] for part in parts]), whole.views[1])
    assert torch.equal(torch.cat([part.labels for part in parts if part.labels is not None]), whole.labels)
    assert whole.split(None) == [whole]


@pytest.mark.parametrize("kind", [ToyMethod, Contrastive])
def test_gradients_are_those_of_one_graph_with_the_same_random_numbers(kind: type[ToyMethod]) -> None:
    """Dropout and batch norm are on: the oracle is one autograd graph over parts that draw as the micro-batches do."""
    given, passes = batch_of(7), Passes(CPU, "step-0-3", micro_batch=3)
    found = built(kind)
    output = add_gradients(found, given, NOW, passes)

    expected, parts = built(kind), given.split(3)
    losses, embedded = [], []
    for number, part in enumerate(parts):
        passes.draw_for(number)
        if kind is Contrastive:
            embedded.append(expected.embed(part))
        else:
            losses.append(expected(part, NOW).loss * len(part.index))
    if kind is Contrastive:
        loss = expected.loss({name: torch.cat([one[name] for one in embedded]) for name in embedded[0]}, NOW).loss
    else:
        loss = torch.stack(losses).sum() / 7
    loss.backward()
    torch.testing.assert_close(output.loss, loss.detach())
    assert gradients(found).keys() == gradients(expected).keys()
    for name, gradient in gradients(expected).items():
        torch.testing.assert_close(gradients(found)[name], gradient, atol=1e-7, rtol=1e-5)
    assert len(output.carry["teacher"]) == 7


def test_batch_norm_counts_each_image_once_though_it_is_embedded_twice() -> None:
    method, once = built(Contrastive), built(Contrastive)
    add_gradients(method, batch_of(6), NOW, Passes(CPU, "s", micro_batch=2))
    for part in batch_of(6).split(2):
        once.embed(part)
    ours, theirs = method.student.layers[2], once.student.layers[2]
    assert ours.num_batches_tracked == 3
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_what_is_exact_and_why_not() -> None:
    toy, contrastive = built(ToyMethod), built(Contrastive)
    assert exactness(toy, None, 8) == exactness(toy, 8, 8) == Exactness(True, "", 1)
    assert exactness(toy, 2, 8) == Exactness(False, "batch norm sees 2 images of 8", 1)
    assert exactness(contrastive, 2, 8).forward_passes == 2
    for method in (toy, contrastive):
        for network in (method.student, method.teacher):
            network.layers[2] = nn.Identity()
        assert exactness(method, 2, 8).exact
    toy.mean_over_images = False
    assert exactness(toy, 2, 8).reason == "the method does not say that its loss is a mean over images"


def test_only_a_micro_batch_is_moved_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    given = Batch.to

    def noted(self: Batch, device: torch.device) -> Batch:
        moved.append(len(self.index))
        return given(self, device)

    monkeypatch.setattr(Batch, "to", noted)
    add_gradients(built(Contrastive), batch_of(7), NOW, Passes(CPU, "s", micro_batch=3))
    assert moved == [3, 2, 2] * 2


def test_a_mean_of_parts_is_the_mean_and_keeps_one_part_of_what_is_large() -> None:
    torch.manual_seed(0)
    rows = torch.randn(512, 8, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(3, 20, 8, dtype=torch.float64, requires_grad=True)

    def spread_scores(part: Tensor) -> Tensor:
        return (part @ rows.T).log_softmax(dim=-1).square().mean()

    results, peaks = [], []
    for images in (20, 3):
        with LiveMemory() as memory:
            mean = mean_of_parts(spread_scores, [vectors], images)
            results.append((mean, *torch.autograd.grad(mean, [rows, vectors])))
        peaks.append(memory.peak)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    assert peaks[1] < 0.4 * peaks[0]


def start(folder: Path, kind: type[ToyMethod] = ToyMethod, **changes: Any) -> tuple[Any, Any, Any, Plan]:
    method, settings = built(kind), OptimizerSettings(base_lr=0.1, warmup_epochs=0)
    folder.mkdir(exist_ok=True)
    plan = make_plan(ToyDataset(count=30).train, folder, settings, batch_size=7, epochs=2, seed=7, **changes)
    return method, kind.make_views(kind.Config()), build_optimizer(settings, method.parameter_groups()), plan


def stop_at(step: int) -> Any:
    def interrupt(report: StepReport) -> None:
        if report.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return interrupt


@pytest.mark.parametrize("kind", [ToyMethod, Contrastive])
@pytest.mark.parametrize("workers", [0, 1])
def test_stopped_and_resumed_is_bitwise_the_uninterrupted_run(
    tmp_path: Path, kind: type[ToyMethod], workers: int
) -> None:
    method, views, optimizer, plan = start(tmp_path / "whole", kind, micro_batch=3)
    state = train(method, views, optimizer, plan, TrainingState())
    assert state.micro_batches == {"3": plan.total_steps}
    cut, views, cut_optimizer, cut_plan = start(tmp_path / "cut", kind, micro_batch=3, workers=workers)
    with pytest.raises(Stopped):
        train(cut, views, cut_optimizer, cut_plan, TrainingState(), report=stop_at(3))
    again, views, again_optimizer, _ = start(tmp_path / "cut", kind)
    saved = load_latest(tmp_path / "cut" / "checkpoints")
    assert saved is not None
    train(again, views, again_optimizer, cut_plan, restore(again, again_optimizer, saved))
    ours, theirs = method.state_dict(), again.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    whole, pieces = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut"))
    assert whole == pieces


def test_a_resumed_run_may_use_other_micro_batches_and_says_so(tmp_path: Path) -> None:
    method, views, optimizer, plan = start(tmp_path)
    with pytest.raises(Stopped):
        train(method, views, optimizer, plan, TrainingState(), report=stop_at(2))
    saved = load_latest(tmp_path / "checkpoints")
    assert saved is not None
    state = restore(method, optimizer, saved)
    with pytest.raises(Stopped):
        train(method, views, optimizer, dataclasses.replace(plan, micro_batch=4), state, report=stop_at(5))
    train(method, views, optimizer, dataclasses.replace(plan, micro_batch=3), state)
    assert state.micro_batches == {"4": 3, "3": plan.total_steps - 5}
