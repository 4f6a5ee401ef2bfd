"""The choice of precision: what is measured, what it leaves alone, and that it is made once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_bench.evaluation.speed import Timing
from ssl_bench.method import Batch
from ssl_bench.records.recipe import MachineSettings
from ssl_bench.runs import precision
from ssl_bench.training.out_of_memory import DoesNotFit
from ssl_bench.training.plan import Plan
from tests.toy import ToyBackbone, ToyDataset, ToyMethod, make_plan


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def setting(tmp_path: Path) -> tuple[ToyMethod, Batch, Plan]:
    method = ToyMethod(ToyMethod.Config(), lambda drop_path=0.0: ToyBackbone())
    batch = Batch((torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)), torch.arange(4))
    plan = make_plan(ToyDataset().train, tmp_path)
    return method, batch, plan


def timed(monkeypatch: pytest.MonkeyPatch, share: float = 1.0, **seconds: float) -> list[str]:
    """Let passes take these times; returns the names of those that were timed."""
    asked: list[str] = []

    def one_pass(method: object, batch: object, plan: object, name: str) -> Timing:
        asked.append(name)
        return Timing(seconds[name], seconds[name] * share * torch.get_num_threads())

    monkeypatch.setattr(precision, "_one_pass", one_pass)
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    return asked


@pytest.mark.parametrize(("fp32", "bf16", "name"), [(2.0, 1.0, "bf16"), (1.05, 1.0, "fp32"), (1.0, 2.0, "fp32")])
def test_bf16_only_where_it_pays_and_the_choice_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float, name: str
) -> None:
    method, batch, plan = setting(tmp_path)
    timed(monkeypatch, fp32=fp32, bf16=bf16)
    chosen = precision.choose_precision("auto", method, batch, plan)
    assert chosen.name == name
    assert f"{fp32 / bf16:.2f} times" in chosen.reason
    timed(monkeypatch, fp32=bf16, bf16=fp32)
    assert precision.choose_precision("auto", method, batch, plan) == chosen


def test_a_cpu_without_bf16_is_never_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = timed(monkeypatch, fp32=2.0, bf16=1.0)
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    chosen = precision.choose_precision("auto", *setting(tmp_path))
    assert (chosen.name, chosen.reason) == ("fp32", "auto: this CPU has no instructions for bf16")
    assert set(asked) == {"fp32"}


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_precision_that_the_cpu_emulates_is_said_to_be_slow(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, **{name: 1.0})
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    assert precision.choose_precision(name, *setting(tmp_path)).reason == "asked for; this CPU only emulates it, slowly"
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    assert precision.choose_precision(name, *setting(tmp_path)).reason == "asked for"


def test_a_busy_machine_gets_fp32_and_its_measurement_is_not_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, batch, plan = setting(tmp_path)
    timed(monkeypatch, share=0.4, fp32=2.0, bf16=1.0)
    chosen = precision.choose_precision("auto", method, batch, plan)
    assert chosen.name == "fp32"
    assert "the process got 40% of the CPU time" in chosen.reason
    timed(monkeypatch, fp32=2.0, bf16=1.0)
    quiet = precision.choose_precision("auto", method, batch, plan)
    assert quiet.name == "bf16"
    assert "busy" not in quiet.reason


def test_the_two_precisions_are_timed_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = timed(monkeypatch, fp32=1.0, bf16=1.0)
    precision.choose_precision("auto", *setting(tmp_path))
    assert asked == ["fp32", "bf16"] * (precision.REPEATS + 1)


@pytest.mark.parametrize("asked", ["bf16", "auto"])
def test_the_first_step_has_the_precision_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """A batch that fits in bf16 may not fit in fp32, which "auto" tries first. Memory is a mock."""
    method, batch, plan = setting(tmp_path)
    step, prepared = ToyMethod.step, list[bool]()

    def limited(self: ToyMethod, *given: Any) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return step(self, *given)

    monkeypatch.setattr(ToyMethod, "step", limited)
    monkeypatch.setattr(ToyMethod, "prepare", lambda *_: prepared.append(torch.is_autocast_enabled("cpu")))
    if asked == "auto":
        with pytest.raises(torch.OutOfMemoryError):
            precision.first_step(method, batch, plan, asked)
    else:
        assert precision.first_step(method, batch, plan, asked).loss.requires_grad
    assert prepared == [asked == "bf16"]


def test_memory_that_runs_out_while_preparing_is_told_as_that_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def runs_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    method, batch, plan = setting(tmp_path)
    monkeypatch.setattr(ToyMethod, "prepare", runs_out)
    with pytest.raises(DoesNotFit, match="4 images at once do not fit into memory"):
        precision.first_step(method, batch, plan, "fp32")


HOW = ("tf32", "compile", "activation_checkpointing")


@pytest.mark.parametrize("what", ["device type", "device name", "torch", "threads", "layers", "width", "images", *HOW])
def test_a_measurement_counts_only_where_it_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A timing of a CPU must not decide for a card, nor one of a network for another."""
    method, batch, plan = setting(tmp_path)
    timed(monkeypatch, fp32=2.0, bf16=1.0)
    assert precision.choose_precision("auto", method, batch, plan).name == "bf16"
    asked = timed(monkeypatch, fp32=1.0, bf16=2.0)
    assert precision.choose_precision("auto", *setting(tmp_path)).name == "bf16"
    assert not asked  # the very same situation is known
    if what == "device type":
        plan = dataclasses.replace(plan, device=torch.device("meta"))
    elif what == "device name":
        monkeypatch.setattr(precision, "device_name", lambda device: "another processor")
    elif what == "torch":
        monkeypatch.setattr(torch, "__version__", "99.0")
    elif what == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    elif what == "layers":
        method.student.layers[3] = torch.nn.Dropout(0.5)
    elif what == "width":
        method.register_buffer("center", torch.zeros(7))
    elif what == "images":
        batch = Batch((torch.rand(8, 3, 8, 8),), batch.index)
    settings = MachineSettings(**({what: True} if what in HOW else {}))
    assert precision.choose_precision("auto", method, batch, plan, settings).name == "fp32"


def test_measuring_leaves_the_method_as_it_was(tmp_path: Path) -> None:
    method, batch, plan = setting(tmp_path)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    chosen = precision.choose_precision("auto", method, batch, plan)
    assert chosen.step_seconds is not None
    assert chosen.step_seconds > 0
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())


def test_a_damaged_memory_is_measured_anew(tmp_path: Path, cache: Path) -> None:
    method, batch, plan = setting(tmp_path)
    cache.mkdir()
    (cache / "precision.json").write_text('{"x": 3')
    assert precision.choose_precision("auto", method, batch, plan).name in ("fp32", "bf16")


def test_what_is_asked_for_is_chosen(tmp_path: Path) -> None:
    method, batch, plan = setting(tmp_path)
    assert precision.choose_precision("bf16", method, batch, plan).autocast_dtype == torch.bfloat16
    assert precision.choose_precision("fp32", method, batch, plan).autocast_dtype is None
