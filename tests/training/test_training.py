"""The loop: order, determinism, resumption bit for bit, stops, and what labels may reach."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer
from ssl_bench.errors import UserError
from ssl_bench.method import Progress
from ssl_bench.runs.describe import describe_training
from ssl_bench.training import checkpoint, loop, step
from ssl_bench.training.batches import EpochOrder, TrainingViews
from ssl_bench.training.checkpoint import load_latest
from ssl_bench.training.collapse_doctor import Doctor, RunFailed
from ssl_bench.training.loop import Stopped, train
from ssl_bench.training.metrics_log import MetricsLog, logged_steps
from ssl_bench.training.state import TrainingState, restore
from ssl_bench.training.step import training_step
from tests.toy import ToyBackbone, ToyDataset, ToyMethod, make_plan


def start(folder: Path, *, epochs: int = 4, workers: int = 0, batch_size: int = 5, **config: Any) -> Any:
    torch.manual_seed(1)
    settings = ToyMethod.Config(**config)
    method = ToyMethod(settings, lambda drop_path=0.0: ToyBackbone())
    optimizer_settings = OptimizerSettings(base_lr=0.1, warmup_epochs=1)
    optimizer = build_optimizer(optimizer_settings, method.parameter_groups())
    folder.mkdir(exist_ok=True)
    plan = make_plan(
        ToyDataset().train, folder, optimizer_settings, batch_size=batch_size, epochs=epochs, seed=7, workers=workers
    )
    return method, ToyMethod.make_views(settings), optimizer, plan


def restored(method: Any, optimizer: Any, run_dir: Path) -> TrainingState:
    """Method and optimizer in the state of the run's last checkpoint; all of them must be whole."""
    saved = load_latest(run_dir / "checkpoints")
    assert saved is not None
    assert not saved.warnings
    return restore(method, optimizer, saved)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@given(images=st.integers(4, 40), batch=st.integers(1, 4), epochs=st.integers(1, 3), seed=st.integers(0, 9))
def test_every_epoch_is_a_permutation_and_skipping_equals_slicing(
    images: int, batch: int, epochs: int, seed: int
) -> None:
    whole = list(EpochOrder(images, batch, epochs, seed))
    steps = images // batch
    assert len(whole) == steps * epochs == len(EpochOrder(images, batch, epochs, seed))
    for epoch in range(epochs):
        keys = [key for group in whole[epoch * steps : (epoch + 1) * steps] for key in group]
        assert {e for e, _ in keys} == {epoch}
        assert len({i for _, i in keys}) == steps * batch
    for first in range(len(whole) + 1):
        assert list(EpochOrder(images, batch, epochs, seed, first)) == whole[first:]


def test_order_depends_on_seed_and_epoch() -> None:
    assert list(EpochOrder(50, 50, 2, 0)) != list(EpochOrder(50, 50, 2, 1))
    first, second = list(EpochOrder(50, 50, 2, 0))
    assert [i for _, i in first] != [i for _, i in second]


def test_views_depend_on_seed_epoch_and_index_alone() -> None:
    samples = TrainingViews(ToyDataset().train, ToyMethod.make_views(ToyMethod.Config()), 3, False)
    again = TrainingViews(ToyDataset().train, ToyMethod.make_views(ToyMethod.Config()), 3, False)
    again[(0, 1)]
    assert torch.equal(samples[(2, 5)][0][0], again[(2, 5)][0][0])
    assert not torch.equal(samples[(2, 5)][0][0], samples[(3, 5)][0][0])


def test_no_label_reaches_a_method_that_does_not_ask(tmp_path: Path) -> None:
    method, views, _, plan = start(tmp_path)
    assert next(plan.batches(method, views)).labels is None
    method.needs_labels = True
    labeled = next(plan.batches(method, views))
    assert labeled.labels is not None
    assert labeled.labels.tolist() == [plan.split.labels[i] for i in labeled.index.tolist()]


def test_stopped_and_resumed_is_bitwise_the_uninterrupted_run(tmp_path: Path) -> None:
    method, views, optimizer, plan = start(tmp_path / "whole")
    train(method, views, optimizer, plan, TrainingState())

    cut, views, cut_optimizer, cut_plan = start(tmp_path / "cut")
    with pytest.raises(Stopped) as stopped:
        train(cut, views, cut_optimizer, cut_plan, TrainingState(), report=lambda r: _interrupt(r.step == 13))
    assert stopped.value.step == 13

    resumed, views, resumed_optimizer, _ = start(tmp_path / "cut")
    state = restored(resumed, resumed_optimizer, tmp_path / "cut")
    train(resumed, views, resumed_optimizer, cut_plan, state)
    assert state.step == plan.total_steps == 36
    assert same(method.state_dict(), resumed.state_dict())
    whole, pieces = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut"))
    assert whole == pieces
    assert len(whole.splitlines()) == 36


@pytest.mark.parametrize("moment", ["sync_file", "sync_folder", "detached"])
def test_a_second_signal_during_the_save_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    method, views, optimizer, plan = start(tmp_path / "whole", epochs=1)
    train(method, views, optimizer, plan, TrainingState())

    cut, views, cut_optimizer, cut_plan = start(tmp_path / "cut", epochs=1)
    asked = False

    def ask_to_stop(report: Any) -> None:
        nonlocal asked
        asked = report.step == 5
        _interrupt(asked)

    original = getattr(checkpoint, moment)

    def interrupted(*arguments: Any) -> Any:
        _interrupt(asked)
        return original(*arguments)

    monkeypatch.setattr(checkpoint, moment, interrupted)
    often = dataclasses.replace(cut_plan, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(cut, views, cut_optimizer, often, TrainingState(), report=ask_to_stop)
    monkeypatch.undo()
    assert checkpoint.last_saved_step(tmp_path / "cut" / "checkpoints") == 4

    resumed, views, resumed_optimizer, _ = start(tmp_path / "cut", epochs=1)
    train(resumed, views, resumed_optimizer, cut_plan, restored(resumed, resumed_optimizer, tmp_path / "cut"))
    assert same(method.state_dict(), resumed.state_dict())
    whole, pieces = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut"))
    assert whole == pieces
    assert not list((tmp_path / "cut" / "checkpoints").glob(".*.part"))


def _interrupt(now: bool) -> None:
    if now:
        os.kill(os.getpid(), signal.SIGINT)


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    results = []
    for workers in (0, 2):
        method, views, optimizer, plan = start(tmp_path / str(workers), workers=workers, epochs=1)
        train(method, views, optimizer, plan, TrainingState())
        results.append(method.state_dict())
    assert same(*results)


def test_another_seed_trains_another_network(tmp_path: Path) -> None:
    results = []
    for seed in (7, 8):
        method, views, optimizer, plan = start(tmp_path / str(seed), epochs=1)
        train(method, views, optimizer, dataclasses.replace(plan, seed=seed), TrainingState())
        results.append(method.state_dict())
    assert not same(*results)


def test_the_gradients_norm_is_logged_as_it_was_before_the_method_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, views, optimizer, plan = start(tmp_path)
    seen: list[torch.Tensor] = []

    def clip(progress: Any) -> None:
        seen.extend(p.grad.clone() for p in method.parameters() if p.grad is not None)
        for parameter in method.parameters():
            parameter.grad = None

    monkeypatch.setattr(method, "before_optimizer", clip)
    batch = next(plan.batches(method, views))
    logs = training_step(method, optimizer, batch, Progress(0, plan.total_steps, 0, plan.epochs), plan)
    expected = sum(float((gradient.double() ** 2).sum()) for gradient in seen) ** 0.5
    assert logs["gradient_norm"] == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_read_once_the_optimizer_is_launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, views, optimizer, plan = start(tmp_path)
    called: list[str] = []

    def noted(name: str, function: Any) -> Any:
        def call(*given: Any) -> Any:
            called.append(name)
            return function(*given)

        return call

    send = step.sent_to_host
    monkeypatch.setattr(step, "sent_to_host", lambda values: called.append("sent") or noted("read", send(values)))
    monkeypatch.setattr(method, "before_optimizer", noted("clipped", method.before_optimizer))
    monkeypatch.setattr(optimizer, "step", noted("optimizer", optimizer.step))
    monkeypatch.setattr(method, "update", noted("update", method.update))
    training_step(method, optimizer, next(plan.batches(method, views)), Progress(0, 10, 0, 1), plan)
    assert called == ["sent", "clipped", "optimizer", "read", "update"]


class CountReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the tensors whose value the host waits for one by one."""

    reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_a_step_reads_no_value_but_in_the_one_list_of_all(tmp_path: Path, micro_batch: int | None) -> None:
    method, views, _, plan = start(tmp_path)
    plan = dataclasses.replace(plan, micro_batch=micro_batch, batch_size=4)
    optimizer = torch.optim.SGD(
        [{"params": list(method.student.parameters()), "lr_factor": 1.0, "decayed": True}], lr=0.1
    )
    batch = next(plan.batches(method, views))
    with CountReads() as counted:
        training_step(method, optimizer, batch, Progress(0, 10, 0, 1), plan)
    assert counted.reads == 0


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    method, views, optimizer, plan = start(tmp_path, explode_at=6)
    plan = dataclasses.replace(plan, checkpoint_seconds=0.0)
    with pytest.raises(RunFailed, match=r"loss is nan at step 6 .*base_lr"):
        train(method, views, optimizer, plan, TrainingState())
    saved = load_latest(tmp_path / "checkpoints")
    assert saved is not None
    assert saved.state["step"] == 6


def test_metrics_after_the_last_checkpoint_are_dropped_on_resumption(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0) as log:
        for step in range(5):
            log.write({"step": step, "loss": 0.5})
    with MetricsLog(tmp_path, 3) as log:
        log.write({"step": 3, "loss": 0.25})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert lines[-1] == '{"step": 3, "loss": 0.25}'


def test_rows_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    lines = [
        '{"step": 0, "epoch": 0, "loss": 1.5}', "{half", '{"step": 1, "loss": 1}', '["step"]',
        '{"step": 2, "epoch": 0, "loss": "NaN", "kl": "-Infinity"}', '{"step": 2, "epoch": 0, "loss": 9}', "7",
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    first, second = logged_steps(tmp_path)
    assert first == {"step": 0, "epoch": 0, "loss": 1.5}
    assert str(second) == "{'step': 2.0, 'epoch': 0.0, 'loss': nan, 'kl': -inf}"
    assert list(logged_steps(tmp_path / "nothing")) == []


def test_memory_that_runs_out_between_two_steps_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock of the allocator's error, in what is done after step 2 and in the doctor's look at the first features."""

    def runs_out(step: int) -> None:
        if step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    method, views, optimizer, plan = start(tmp_path)
    with pytest.raises(UserError, match=r"between two steps \(CUDA out .* The run is saved at step 2\. .*--resume"):
        train(method, views, optimizer, plan, TrainingState(), after_step=runs_out)
    method, views, optimizer, plan = start(tmp_path / "again")
    monkeypatch.setattr(Doctor, "probe", lambda *_: runs_out(2))
    with pytest.raises(UserError, match=r"between two steps .*device=cpu\.$"):
        train(method, views, optimizer, plan, TrainingState())


def test_the_peak_of_training_on_a_card_is_that_of_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock of the allocator's counter: 900 MB before training, 300 in a step, 800 in what is done after it."""
    card, peak = torch.device("cuda", 0), [900]
    note, anew, step = TrainingState.note_peak, loop.reset_peak, ToyMethod.step

    def take(mb: int) -> None:
        peak[0] = max(peak[0], mb)

    def stepped(self: ToyMethod, *given: Any) -> Any:
        take(300)
        return step(self, *given)

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak[0] * 2**20)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peak.__setitem__(0, 100))
    monkeypatch.setattr(TrainingState, "note_peak", lambda self, device: note(self, card))
    monkeypatch.setattr(loop, "reset_peak", lambda device: anew(card))
    monkeypatch.setattr(ToyMethod, "step", stepped)
    method, views, optimizer, plan = start(tmp_path, epochs=1)
    state = train(method, views, optimizer, plan, TrainingState(), after_step=lambda step: take(800))
    assert state.peak_memory_mb == 300
    resumed = restored(method, optimizer, tmp_path)
    take(900)
    train(method, views, optimizer, plan, resumed)  # nothing is left to do
    plan = dataclasses.replace(plan, device=card)
    assert describe_training(resumed, plan, method).peak_memory_mb == 300
    assert describe_training(TrainingState(), plan, method).peak_memory_mb == 100  # nothing was trained


def test_an_image_that_breaks_during_training_costs_nothing_learned(tmp_path: Path) -> None:
    method, views, optimizer, plan = start(tmp_path)
    good = plan.split

    class Breaking:
        labels, reads = good.labels, 0

        def __len__(self) -> int:
            return len(good)

        def image(self, index: int) -> Image.Image:
            self.reads += 1
            if self.reads > 22:
                raise UserError("train/a/7.png is truncated.")
            return good.image(index)

    with pytest.raises(UserError, match=r"7.png is truncated. The run is saved at step 4\. .*--resume"):
        train(method, views, optimizer, dataclasses.replace(plan, split=Breaking()), TrainingState())
    saved = load_latest(tmp_path / "checkpoints")
    assert saved is not None
    assert saved.state["step"] == 4
