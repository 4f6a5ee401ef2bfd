"""The device that a run gets, and what a record says of the code that made it; cards are a stand-in for torch.cuda."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_bench.errors import UserError
from ssl_bench.evaluators.knn.nearest import nearest
from ssl_bench.records.cost import MemoryRecord
from ssl_bench.runs import machine
from ssl_bench.runs.machine import git_commit
from tests.conftest import Command
from tests.fake_cuda import HOPPER, PASCAL, FakeCard, fake_cuda
from tests.toy import write_image_folder

ROOT = Path(__file__).resolve().parents[2]


def test_the_commit_is_that_of_the_checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert (git_commit() or "").removesuffix("+changes") == head.stdout.strip()


TOO_OLD = "has no kernels for it"


@pytest.mark.parametrize(
    ("found", "device", "reason"),
    [
        ((), "cpu", ""),
        ((HOPPER,), "cuda:0", ""),
        ((PASCAL,), "cpu", TOO_OLD),
        ((PASCAL, HOPPER), "cuda:1", TOO_OLD),
        ((HOPPER, PASCAL), "cuda:0", ""),
        ((dataclasses.replace(HOPPER, fails="it is full"),), "cpu", "it is full"),
    ],
)
def test_auto_is_the_first_card_that_can_be_used(
    found: tuple[FakeCard, ...], device: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cuda(monkeypatch, *found)
    current = list[torch.device]()
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    chosen = machine.choose_device("auto")
    assert chosen == torch.device(device)
    assert current == ([chosen] if chosen.type == "cuda" else [])
    words = machine.why_not_on_a_card(chosen, "auto")
    assert reason in words if reason else words == ""
    assert machine.why_not_on_a_card(torch.device("cpu"), "cpu") == ""


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("cuda", TOO_OLD),
        ("cuda:0", TOO_OLD),
        ("cuda:1", ""),
        ("cuda:2", "there are 2 CUDA devices"),
        ("gpu", "is no device"),
    ],
)
def test_a_card_that_is_asked_for(asked: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch, PASCAL, HOPPER)
    if not words:
        assert machine.choose_device(asked) == torch.device(asked)
        return
    with pytest.raises(UserError, match=words):
        machine.choose_device(asked)


def test_the_first_card_is_asked_for_without_its_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.cuda.set_per_process_memory_fraction` refuses a device without one."""
    fake_cuda(monkeypatch, HOPPER, HOPPER)
    assert machine.choose_device("cuda") == torch.device("cuda", 0)
    assert machine.choose_device("cuda:1") == torch.device("cuda", 1)


def test_the_preflight_says_why_a_card_is_not_used(
    sslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cuda(monkeypatch, PASCAL)
    write_image_folder(tmp_path / "tints", train=8, test=4)
    network = ("--set", "backbone.width=0.0625", "--set", "training.precision=fp32")
    status, out, err = sslbench(
        "run", "supervised", "--arch", "resnet18", *network, "--data", "tints", "--epochs", "0", "--with", "knn"
    )
    assert status == 0, err
    assert "GTX 1050 Ti has compute capability 6.1" in " ".join(out.split())
    assert "whl/cu126" in " ".join(out.split())


@pytest.mark.parametrize(
    ("device", "memory", "kept"),
    [
        ("cpu", {"predicted_peak_mb": 700}, [True]),
        ("cpu", {"predicted_peak_mb": 800}, [False]),  # with gaps it may take 1,040 of the 1,000 MB
        ("cpu", {}, [False]),
        ("cpu", {"predicted_peak_mb": 700, "stepped_down": ("at step 3",)}, [False]),
        ("cuda", {"predicted_peak_mb": 700}, []),
    ],
)
def test_freed_memory_is_kept_where_a_step_leaves_room(
    monkeypatch: pytest.MonkeyPatch, device: str, memory: dict[str, Any], kept: list[bool]
) -> None:
    calls = list[bool]()
    monkeypatch.setattr(machine, "keep_freed_memory", calls.append)
    record = MemoryRecord(memory_mb=1900, usable_mb=1000, **memory)
    machine.keep_freed_memory_where_it_fits(torch.device(device), record)
    assert calls == kept


def test_tf32_can_be_changed_after_a_search_that_turns_it_off() -> None:
    card, queries = torch.device("cuda"), torch.randn(50, 4)
    try:
        for allowed in (True, False, True):
            machine.set_tf32(allowed, card)
            nearest(queries, queries, 1, "torch")
            assert torch.backends.cuda.matmul.allow_tf32 is allowed
            assert torch.backends.cudnn.allow_tf32 is allowed
            assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
        machine.set_tf32(True, torch.device("cpu"))  # "high" would also let oneDNN round a CPU's products
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True
