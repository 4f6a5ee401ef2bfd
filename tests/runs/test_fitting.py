"""How a run fits its memory. Nothing here has a GPU: memory that runs out is a mock of the allocator's error."""

from __future__ import annotations

import itertools
import json
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_bench.errors import UserError
from ssl_bench.method import Batch
from ssl_bench.planning.step_memory import PARTS, StepMemory
from ssl_bench.records.cost import MemoryRecord
from ssl_bench.records.recipe import MachineSettings
from ssl_bench.runs import beginning, fitting, runner, session
from ssl_bench.runs.machine import choose_device
from ssl_bench.runs.predicting import StepPredictor
from ssl_bench.training.micro_batches import refuse_single_images
from ssl_bench.training.out_of_memory import DoesNotFit, NormStatistics, is_out_of_memory, undone_where_it_does_not_fit
from ssl_bench_plugins.methods.supervised import Supervised
from tests.conftest import Command
from tests.fake_cuda import FakeCard, fake_cuda
from tests.toy import write_image_folder

VIT = ("backbone.depth=1", "backbone.dim=32", "backbone.heads=2", "backbone.patch_px=8")
MB = 2**20


def settings(*assignments: str) -> list[str]:
    return [word for one in assignments for word in ("--set", one)]


class Runs:
    """`sslbench run supervised` on a tiny set, by run id."""

    def __init__(self, sslbench: Command, folder: Path) -> None:
        self.sslbench, self.folder = sslbench, folder
        self.data = write_image_folder(folder / "tints", train=8, test=4, px=16)

    def __call__(self, run_id: str, *words: str, arch: str = "deit_ti16", given: tuple[str, ...] = VIT) -> str:
        status, out, err = self.sslbench(
            "run", "supervised", "--arch", arch, *settings(*given, "training.precision=fp32"), "--data", self.data,
            "--epochs", "1", "--batch-size", "8", "--with", "knn", "--run-id", run_id, *words,
        )  # fmt: skip
        assert status == 0, out + err
        return out + err

    def record(self, run_id: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.folder / "results" / "runs" / run_id / "record.json").read_text())
        return record

    def weights(self, run_id: str) -> Mapping[str, Tensor]:
        return load_file(self.folder / "results" / "runs" / run_id / "weights.safetensors")


@pytest.fixture
def runs(sslbench: Command, tmp_path: Path) -> Runs:
    return Runs(sslbench, tmp_path)


def test_a_small_run_says_an_upper_bound_and_records_it(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a prediction, which takes seconds; the bound is above the measured peak of the tensors."""

    def refuse(*_: object) -> None:
        raise AssertionError("predicted although far from the limit")

    monkeypatch.setattr(StepPredictor, "memory", refuse)
    said = runs("small")
    assert "whole batches" in said
    memory = runs.record("small")["training"]["memory"]
    assert memory["predicted_by"] == "upper bound"
    assert (memory["micro_batch"], memory["activation_checkpointing"]) == (None, False)


def test_near_the_limit_the_step_is_predicted_and_done_in_parts(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prediction is a mock: 1 MB an image, of 5 that are usable; the weights differ by rounding only."""
    monkeypatch.setattr(fitting, "upper_bound", lambda *_: None)
    monkeypatch.setattr(
        StepPredictor,
        "memory",
        lambda self, choice: StepMemory(
            dict.fromkeys(PARTS, 0) | {"activations": (choice.micro_batch or self.batch_size) * MB},
            400 if choice.checkpointing else 300,
        ),
    )
    said = runs("parts", "--memory", "905MB")
    assert "4 of 8 images at once" in said
    kept = runs.record("parts")["training"]
    assert kept["memory"]["predicted_peak_mb"] == 4.0
    assert kept["memory"]["memory_mb"] == 905
    assert [(one["images"], one["exact"]) for one in kept["micro_batches"]] == [(4, True)]


def out_of_memory_above(images: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The method raises as the allocator does for more images at once; returns what it is asked for."""
    step, seen = Supervised.step, list[int]()

    def limited(self: Supervised, batch: Any, progress: Any) -> Any:
        seen.append(len(batch.index))
        output = step(self, batch, progress)
        if len(batch.index) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return output

    monkeypatch.setattr(Supervised, "step", limited)
    return seen


@pytest.mark.parametrize(("arch", "given"), [("deit_ti16", VIT), ("resnet18", ("backbone.width=0.125",))])
def test_memory_that_runs_out_in_a_step(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, arch: str, given: tuple[str, ...]
) -> None:
    """In the second of two steps: activations again, then half the images. The first step is bitwise that of an
    undisturbed run; the second one's loss, taken before anything moves, too but for rounding, where it is exact."""
    runs("whole", arch=arch, given=given)
    step = Supervised.step

    def limited(self: Supervised, batch: Any, progress: Any) -> Any:
        output = step(self, batch, progress)
        if progress.step == 1 and len(batch.index) > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return output

    monkeypatch.setattr(Supervised, "step", limited)
    said = runs("stepped", arch=arch, given=given)
    assert "step 2, 8 images at once do not fit into memory" in said
    record = runs.record("stepped")
    memory = record["training"]["memory"]
    assert memory["micro_batch"] == 4
    assert memory["activation_checkpointing"] is True
    assert record["machine"]["activation_checkpointing"] is True
    assert len(memory["stepped_down"]) == 2
    exact = arch == "deit_ti16"
    assert [(one["images"], one["steps"], one["exact"]) for one in record["training"]["micro_batches"]] == [
        (4, 1, exact)
    ]
    whole, stepped = (
        (runs.folder / "results" / "runs" / one / "metrics.jsonl").read_text().splitlines()
        for one in ("whole", "stepped")
    )
    assert whole[0] == stepped[0]
    if exact:
        assert json.loads(stepped[1])["loss"] == pytest.approx(json.loads(whole[1])["loss"], rel=1e-5)


@pytest.mark.parametrize("where", ["optimizer", "update"])
def test_memory_that_runs_out_while_weights_move(runs: Runs, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """In the second of two steps, once half of the weights moved. Nothing was saved yet, so the run begins again, with
    activations computed again, which is bitwise the same: its weights are those of an undisturbed run."""
    runs("whole")
    left, optimizers = [1], list[weakref.ref[Any]]()
    build, resumed = session.build_optimizer, runner.resumed_state

    def built(*given: Any) -> Any:
        optimizer = build(*given)
        optimizers.append(weakref.ref(optimizer))
        return optimizer

    def resumed_with_one_optimizer(*given: Any) -> Any:
        assert [one() is None for one in optimizers] == [True, False]  # its moments are gone before others are read
        return resumed(*given)

    monkeypatch.setattr(session, "build_optimizer", built)
    monkeypatch.setattr(runner, "resumed_state", resumed_with_one_optimizer)

    def run_out(parameters: list[Tensor], step: int) -> None:
        if step == 1 and left:
            left.clear()
            with torch.no_grad():
                for parameter in parameters:
                    parameter.mul_(7)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    if where == "optimizer":
        steps, step = [0], torch.optim.AdamW.step

        def limited(self: torch.optim.AdamW, *given: Any) -> Any:
            steps[0] += 1
            run_out(self.param_groups[0]["params"], steps[0] - 1)
            return step(self, *given)

        monkeypatch.setattr(torch.optim.AdamW, "step", limited)
    else:
        monkeypatch.setattr(
            Supervised, "update", lambda self, carry, progress: run_out(list(self.parameters()), progress.step)
        )
    said = runs("again")
    assert not left
    assert "step 2, memory ran out while the weights were moved" in said
    whole, again = runs.weights("whole"), runs.weights("again")
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    record = runs.record("again")["training"]
    assert len(record["memory"]["stepped_down"]) == 1
    folder = runs.folder / "results" / "runs"
    assert len((folder / "again" / "metrics.jsonl").read_text().splitlines()) == 2


def test_memory_that_runs_out_before_training(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_memory_above(4, monkeypatch)
    settings, choose = list[MachineSettings](), beginning.choose_precision

    def choose_precision(*given: Any) -> Any:
        settings.append(given[-1])
        return choose(*given)

    monkeypatch.setattr(beginning, "choose_precision", choose_precision)
    said = runs("tried")
    assert [one.activation_checkpointing for one in settings] == [True]  # a timing is of the step as it is done
    assert "before training, 8 images at once do not fit into memory" in said
    assert runs.record("tried")["training"]["memory"]["micro_batch"] == 4


def test_the_bottom_is_a_clear_error_with_the_run_saved(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, sslbench: Command
) -> None:
    out_of_memory_above(0, monkeypatch)
    status, out, err = sslbench(
        "run", "supervised", "--arch", "deit_ti16", *settings(*VIT), "--data", runs.data, "--epochs", "1",
        "--batch-size", "8", "--set", "machine.micro_batch=4", "--run-id", "none",
    )  # fmt: skip
    assert status == 2
    assert "leave out --set machine.micro_batch=4" in out + err
    assert "Traceback" not in out + err


def with_batch_norm() -> Any:
    method: Any = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    method.frozen = ()
    return method


@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(8, [4, 2]), (10, [5, 3, 2]), (5, [3]), (7, [4, 3]), (9, [5, 3]), (3, []), (2, []), (1, [])],
)
def test_no_way_down_leaves_batch_norm_a_single_image(batch_size: int, sizes: list[int]) -> None:
    """By hand: 7 images, 2 at once, are 2, 2, 2 and 1, so that the smallest way is 3, 2 and 2."""
    method, memory = with_batch_norm(), MemoryRecord(memory_mb=1, usable_mb=1, activation_checkpointing=True)
    whole = Batch((torch.zeros(batch_size, 3),), torch.arange(batch_size), None)
    resolved: Any = SimpleNamespace(machine=MachineSettings())

    def planned(size: int) -> Any:
        return SimpleNamespace(batch_size=batch_size, images_at_once=size)

    for at_once, fewer in itertools.pairwise([batch_size, *sizes]):
        memory = fitting.smaller(memory, resolved, method, planned(at_once), "no room")
        assert memory.micro_batch == fewer
        assert min(len(part.index) for part in whole.split(fewer)) >= 2
        refuse_single_images(method, batch_size, fewer)
    least = min([batch_size, *sizes])
    with pytest.raises(UserError, match="there is no smaller way"):
        fitting.smaller(memory, resolved, method, planned(least), "no room")
    for size in range(1, least):
        with pytest.raises(UserError, match=f"--set machine.micro_batch={least}"):
            refuse_single_images(method, batch_size, size)


def test_a_resume_with_micro_batches_of_a_single_image_is_refused(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, sslbench: Command
) -> None:
    def stop(self: Supervised, carry: Any, progress: Any) -> None:
        raise UserError("stopped")

    monkeypatch.setattr(Supervised, "update", stop)
    with pytest.raises(AssertionError, match="stopped"):
        runs("stopped", arch="resnet18", given=("backbone.width=0.125",))
    status, out, err = sslbench("run", "--resume", "stopped", "--set", "machine.micro_batch=1")
    assert status == 2
    assert "micro-batches of a single image out of 8" in " ".join((out + err).split())


def test_a_step_leaves_nothing_behind() -> None:
    norm = torch.nn.BatchNorm1d(3)
    statistics = NormStatistics(norm)
    norm(torch.randn(4, 3))
    before = {name: value.clone() for name, value in norm.named_buffers()}

    def runs_out(error: RuntimeError) -> None:
        with undone_where_it_does_not_fit(norm, 5, statistics):  # type: ignore[arg-type]
            norm(torch.randn(4, 3)).sum().backward()
            raise error

    with pytest.raises(DoesNotFit, match="5 images at once"):
        runs_out(torch.OutOfMemoryError("CUDA out of memory"))
    assert all(torch.equal(value, before[name]) for name, value in norm.named_buffers())
    assert norm.weight.grad is None
    with pytest.raises(RuntimeError, match="shapes"):
        runs_out(RuntimeError("shapes do not match"))


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names of what torch computes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_statistics_are_kept_in_the_same_memory() -> None:
    """Two batch norms: one operation for what is float32, one for the counts, and none that takes memory."""
    networks = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    statistics = NormStatistics(networks)
    with Operations() as seen:
        statistics.keep()
    assert seen.names == ["aten::_foreach_copy_"] * 2
    NormStatistics(torch.nn.Linear(2, 2)).keep()  # nothing to keep


def test_what_out_of_memory_looks_like() -> None:
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60)
    assert is_out_of_memory(found.value)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_what_the_user_sets_on_a_resume_wins() -> None:
    memory = MemoryRecord(memory_mb=1, usable_mb=1, micro_batch=8, activation_checkpointing=True)
    assert fitting.as_set(memory, MachineSettings()) == memory
    assert fitting.as_set(memory, MachineSettings(micro_batch=4)).micro_batch == 4
    assert fitting.as_set(memory, MachineSettings(activation_checkpointing=False)).activation_checkpointing is False


def test_a_card_half_full_and_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock of torch.cuda: 3 GB of 8 are free, of which a limit of 4 GB leaves the context and a share. As torch's,
    the mock of the cap refuses a device without an index."""
    capped: list[float] = []

    def cap(share: float, device: torch.device) -> None:
        assert torch.cuda._utils._get_device_index(device) == 0
        capped.append(share)

    fake_cuda(monkeypatch, FakeCard("a card", (9, 0), free=3 * 2**30, total=8 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", cap)
    device = choose_device("auto")
    assert fitting.limited_device(device, None).usable < 3 * 2**30
    assert capped == []
    assert fitting.limited_device(device, "4GB").memory == 4 * 2**30
    assert capped == [pytest.approx((4 - 600 / 1024) / 8)]
    with pytest.raises(UserError, match="lacks a unit"):
        fitting.limited_device(device, "4")
