"""The choice of precision: what is measured, what it leaves alone, and that it is made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssl_bench import precision
from ssl_bench.method import Batch
from ssl_bench.optimizers import OptimizerSettings
from ssl_bench.training import Plan
from tests.toy import ToyBackbone, ToyDataset, ToyMethod


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def setting(tmp_path: Path) -> tuple[ToyMethod, Batch, Plan]:
    method = ToyMethod(ToyMethod.Config(), lambda drop_path=0.0: ToyBackbone())
    batch = Batch((torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)), torch.arange(4))
    plan = Plan(ToyDataset().train, 4, 1, 0, OptimizerSettings(), torch.device("cpu"), None, 0, tmp_path, 1e9)
    return method, batch, plan


@pytest.mark.parametrize(("fp32", "bf16", "name"), [(2.0, 1.0, "bf16"), (1.05, 1.0, "fp32"), (1.0, 2.0, "fp32")])
def test_bf16_only_where_it_pays_and_the_choice_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float, name: str
) -> None:
    method, batch, plan = setting(tmp_path)
    times = {"fp32": fp32, "bf16": bf16}
    monkeypatch.setattr(precision, "_step_seconds", lambda m, b, p, which: times[which])
    chosen = precision.choose_precision("auto", method, batch, plan)
    assert chosen.name == name
    assert f"{fp32 / bf16:.2f} times" in chosen.reason
    times |= {"fp32": bf16, "bf16": fp32}
    assert precision.choose_precision("auto", method, batch, plan) == chosen


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
