"""Checkpoints: bit for bit, verified, atomic, and the last but one when the last is damaged."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssl_bench.errors import UserError
from ssl_bench.training import checkpoint
from ssl_bench.training.checkpoint import checkpoints, load_latest, save_checkpoint
from ssl_bench.weights.tensor_file import load_weights, save_weights


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    network[1].weight = nn.Parameter(network[0].bias.detach())
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return network, optimizer


def save(folder: Path, step: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    network, optimizer = trained()
    save_checkpoint(folder, step, network.state_dict(), optimizer.state_dict(), {"seconds": 1.5})
    return network, optimizer


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    network, optimizer = save(tmp_path, 3)
    saved = load_latest(tmp_path)
    assert saved is not None
    weights, moments = saved.method, saved.optimizer
    assert saved.state == {"step": 3, "seconds": 1.5}
    assert saved.warnings == ()
    for name, value in network.state_dict().items():
        assert torch.equal(weights[name], value)
        assert weights[name].dtype == value.dtype
    fresh = torch.optim.AdamW(trained()[0].parameters(), lr=9.0, fused=True)
    fresh.load_state_dict(moments)
    for mine, theirs in zip(fresh.state.values(), optimizer.state.values(), strict=True):
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    assert fresh.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_only_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("name", ["method.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_answered_with_the_one_before(tmp_path: Path, name: str, damage: str) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    file = tmp_path / "step-00000002" / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) * 2 // 3] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    saved = load_latest(tmp_path)
    assert saved is not None
    assert saved.state["step"] == 1
    assert "step-00000002" in saved.warnings[0]
    assert name in saved.warnings[0] or name == "manifest.json"


def test_without_a_usable_checkpoint_the_message_says_what_to_do(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000001" / "state.json").unlink()
    with pytest.raises(UserError, match=r"no usable checkpoint(.|\n)*state.json is missing(.|\n)*--restart"):
        load_latest(tmp_path)


def test_a_full_disk_leaves_earlier_checkpoints_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError, match=r"cannot save .*No space left.*--results"):
        save(tmp_path, 2)
    monkeypatch.undo()
    saved = load_latest(tmp_path)
    assert saved is not None
    assert saved.state["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_weights_are_checked_against_their_digest(tmp_path: Path) -> None:
    network, _ = trained()
    path = tmp_path / "weights.safetensors"
    digest = save_weights(path, network.state_dict(), {"run_id": "x"})
    assert torch.equal(load_weights(path, digest)["0.weight"], network.state_dict()["0.weight"])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_weights(path, digest)
    with pytest.raises(UserError, match="does not exist"):
        load_weights(tmp_path / "none.safetensors")
