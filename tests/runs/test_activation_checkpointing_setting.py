"""`machine.activation_checkpointing` reaches every network of the method and leaves the result as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ssl_bench_plugins.backbones.deit import ViT
from tests.conftest import Command
from tests.end_to_end.test_end_to_end import SMALL
from tests.toy import write_image_folder

ON = ("--set", "machine.activation_checkpointing=true")


def test_same_weights_same_digest_and_both_networks_recompute(
    sslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_image_folder(tmp_path / "tints", train=8, test=4, px=16)
    asked: list[bool] = []
    given = ViT.set_activation_checkpointing

    def noted(self: ViT, enabled: bool) -> None:
        asked.append(enabled)
        given(self, enabled)

    monkeypatch.setattr(ViT, "set_activation_checkpointing", noted)
    arguments = ["run", "dino", *SMALL, "--data", str(data), "--epochs", "1", "--with", "knn"]
    records = []
    for run_id, more in (("kept", ()), ("recomputed", ON)):
        status, out, err = sslbench(*arguments, "--run-id", run_id, *more)
        assert status == 0, out + err
        records.append(json.loads((tmp_path / "results" / "runs" / run_id / "record.json").read_text()))
    assert asked == [True, True]  # student and teacher
    folders = [tmp_path / "results" / "runs" / run_id for run_id in ("kept", "recomputed")]
    plain, recomputed = (load_file(folder / "weights.safetensors") for folder in folders)
    assert [name for name, one in plain.items() if not torch.equal(one, recomputed[name])] == []
    logs = [(folder / "metrics.jsonl").read_bytes() for folder in folders]
    assert logs[0] == logs[1]
    assert records[0]["digest"] == records[1]["digest"]
    assert [record["machine"]["activation_checkpointing"] for record in records] == [False, True]


def test_a_network_that_cannot_is_refused_before_anything_is_written(sslbench: Command, tmp_path: Path) -> None:
    data = write_image_folder(tmp_path / "tints", train=8, test=4, px=32)
    status, out, err = sslbench("run", "simclr", "--arch", "timm:dla34", "--data", str(data), "--batch-size", "8", *ON)
    assert status == 2
    assert "dla34 cannot recompute" in out + err
    assert not (tmp_path / "results").exists()
