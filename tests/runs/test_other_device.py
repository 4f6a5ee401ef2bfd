"""A run that is resumed on another device than it was begun on; the devices are stand-ins."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_bench.errors import UserError
from ssl_bench.records.cost import SpeedRecord
from ssl_bench.runs import beginning
from ssl_bench.runs.state import BeforeTraining
from ssl_bench.training.state import TrainingState
from ssl_bench_plugins.methods.supervised import Supervised
from tests.conftest import Command
from tests.fake_cuda import HOPPER, PASCAL, FakeCard, fake_cuda
from tests.toy import write_image_folder

NETWORK = ("--set", "backbone.depth=1", "--set", "backbone.dim=32", "--set", "backbone.heads=2")


def before_training(precision: str, *devices: str) -> BeforeTraining:
    speed = SpeedRecord.model_construct()
    return BeforeTraining.model_construct(
        precision=precision, precision_reason="", threads=1, speed=speed, untrained=(), devices=devices
    )


def test_another_device_is_said_and_recorded(
    sslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_image_folder(tmp_path / "tints", train=8, test=4, px=16)

    def stop(self: Supervised, carry: Any, progress: Any) -> None:
        raise UserError("stopped")

    with monkeypatch.context() as stopping:
        stopping.setattr(Supervised, "update", stop)
        status, _, err = sslbench(
            "run", "supervised", "--arch", "deit_ti16", *NETWORK, "--set", "backbone.patch_px=8", "--data", data,
            "--epochs", "1", "--batch-size", "8", "--with", "knn", "--run-id", "moved",
            "--set", "training.precision=fp32",
        )  # fmt: skip
        assert (status, "stopped" in err) == (2, True)
    monkeypatch.setattr(beginning, "device_name", lambda device: "another CPU")
    status, out, err = sslbench("run", "--resume", "moved")
    assert status == 0, err
    assert "resumed on another CPU: the result is the same up to rounding" in " ".join(out.split())
    (note,) = json.loads((tmp_path / "results" / "runs" / "moved" / "record.json").read_text())["notes"]
    assert note.startswith("begun on ")


def test_every_device_of_a_run_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    before, cpu = before_training("fp32", "A"), torch.device("cpu")
    for name, kept in (("A", ("A",)), ("B", ("A", "B")), ("B", ("A", "B")), ("A", ("A", "B", "A"))):
        monkeypatch.setattr(beginning, "device_name", lambda device, name=name: name)
        known = before.devices
        before, note = beginning.resumed_on(before, cpu)
        assert before.devices == kept
        assert bool(note) is (kept != known)
    assert note == "begun on A, resumed on B, then on A: the result is the same up to rounding"
    assert beginning.resumed_on(before_training("fp32"), cpu)[1] == ""  # of an earlier version, which kept none


@pytest.mark.parametrize(("card", "refused"), [(PASCAL, True), (HOPPER, False)])
def test_bf16_is_refused_on_a_card_that_emulates_it(
    monkeypatch: pytest.MonkeyPatch, card: FakeCard, refused: bool
) -> None:
    fake_cuda(monkeypatch, card)
    device = torch.device("cuda", 0)
    assert "resumed on " + card.name in beginning.resumed_on(before_training("fp32", "another"), device)[1]
    if not refused:
        beginning.resumed_on(before_training("bf16", "another"), device)
        return
    with pytest.raises(UserError, match=r"begun in bf16, which NVIDIA GeForce GTX 1050 Ti only emulates.*--restart"):
        beginning.resumed_on(before_training("bf16", "another"), device)


@pytest.mark.parametrize(
    ("device", "devices", "words"),
    [
        ("cpu", ("A",), "will be bitwise the uninterrupted one"),
        ("cpu", ("A", "B"), "will be the uninterrupted one up to rounding"),
        ("cuda:0", ("A",), "will be the uninterrupted one up to rounding"),
    ],
)
def test_bitwise_is_said_of_one_cpu_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, devices: tuple[str, ...], words: str
) -> None:
    monkeypatch.setattr(beginning, "load_latest", lambda folder: SimpleNamespace(warnings=()))
    monkeypatch.setattr(beginning, "restore", lambda *given: TrainingState(step=3))
    plan: Any = SimpleNamespace(run_dir=tmp_path, device=torch.device(device), batch_size=4, images_at_once=4)
    lines: list[str] = []
    beginning.resumed_state(*[None] * 2, plan, lambda label, text: lines.append(text), devices)  # type: ignore[arg-type]
    assert lines == [f"at step 3; the result {words}"]
