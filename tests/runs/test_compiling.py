"""`machine.compile` and `machine.tf32`: what reaches the networks and the record, and where it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ssl_bench.records.recipe import MachineSettings
from ssl_bench.runs import compiling, machine
from ssl_bench.runs.precision import Precision
from tests.conftest import Command
from tests.end_to_end.test_end_to_end import SMALL
from tests.fake_cuda import CUDA_12_6_WHEEL, HOPPER, PASCAL, fake_cuda
from tests.toy import ToyBackbone, ToyMethod, write_image_folder

COMPILED = ("--set", "machine.compile=true")


def test_every_network_is_compiled_and_the_record_says_so(
    sslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_image_folder(tmp_path / "tints", train=8, test=4, px=16)
    compiled: list[object] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compiled.append((type(self).__name__, how)))
    arguments = ["run", "dino", *SMALL, "--data", str(data), "--epochs", "1", "--with", "knn", "--run-id", "it"]
    status, out, err = sslbench(*arguments, *COMPILED)
    assert status == 0, out + err
    assert compiled == [("DeitTi16", {"backend": "inductor"})] * 2  # student and teacher
    assert json.loads((tmp_path / "results" / "runs" / "it" / "record.json").read_text())["machine"]["compiled"]
    assert ", compiled" in sslbench("show", "it")[1]


def test_a_compiled_network_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced by dynamo, without the minute of C++ that inductor would add; float32, relative 1e-5."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    method = ToyMethod(ToyMethod.Config(), lambda drop_path=0.0: ToyBackbone())
    network, images = method.student, torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    names = list(method.state_dict())
    found = []
    for compiled in (False, True):
        if compiled:
            compiling.compile_networks(method, torch.device("cpu"))
        method.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        out = network.train()(images)
        out.square().sum().backward()
        found.append([out.detach(), *(one.grad.clone() for one in network.parameters() if one.grad is not None)])
    assert list(method.state_dict()) == names
    for plain, same in zip(*found, strict=True):
        torch.testing.assert_close(same, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("card", "triton", "words"),
    [
        (PASCAL, True, "needs 7.0"),
        (HOPPER, False, "triton is not installed"),
        (HOPPER, True, ""),
    ],
)
def test_where_a_card_cannot_be_compiled_for(
    card: object, triton: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cuda(monkeypatch, card, built_for=CUDA_12_6_WHEEL)  # type: ignore[arg-type]
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: object() if triton else None)
    reason = compiling.why_not_compiled(torch.device("cuda"))
    assert words in reason if words else reason == ""


def test_without_a_compiler_nothing_begins(sslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    data = write_image_folder(tmp_path / "tints", train=8, test=4, px=16)
    status, _, err = sslbench("run", "dino", *SMALL, "--data", str(data), "--epochs", "1", *COMPILED)
    assert status == 2
    assert "machine.compile = true: there is no C++ compiler (g++ or clang++) on the PATH" in err
    assert not (tmp_path / "results").exists()
    assert "not tried on mps" in compiling.why_not_compiled(torch.device("mps"))


@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_covers_products_and_convolutions_and_is_recorded(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        machine.set_tf32(allowed, torch.device("cuda"))
        assert torch.backends.cuda.matmul.allow_tf32 is allowed
        assert torch.backends.cudnn.allow_tf32 is allowed
        found = {}
        for name, card in (("hopper", HOPPER), ("pascal", PASCAL)):
            fake_cuda(monkeypatch, card)
            precision = Precision("fp32", "", None)
            found[name] = machine.record(torch.device("cuda"), precision, MachineSettings()).tf32
        found["cpu"] = machine.record(torch.device("cpu"), precision, MachineSettings()).tf32
        assert found == {"hopper": allowed, "pascal": None, "cpu": None}
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
