"""Files that are no weights, would execute code, or do not hold the whole network: one message each, and no network."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from ssl_bench.cli.main import app
from ssl_bench.errors import UserError
from ssl_bench.weights.loading import load_network, open_weights
from tests.weights.networks import RESNET, VIT, resnet, tensors, vit


class Runs:
    """Executes a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"it is empty \(0 bytes\)"),
        (b"these are no weights\n", "it is a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer.* git lfs pull"),
        (b"<!DOCTYPE html><html>login</html>", "it is a web page"),
        (gzip.compress(b"weights", mtime=0), "compressed with gzip"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "HDF5"),
        (b"\x93NUMPY" + bytes(100), "a NumPy array"),
        (bytes(range(130, 256)) * 4, "its format is not known"),
        (b"\x80\x02garbage", "no file of weights, or a damaged one|damaged or only partly"),
        ((50).to_bytes(8, "little") + b"{" + b"x" * 60, "damaged or only partly there"),
    ],
)
def test_what_is_no_file_of_weights_says_what_it_is(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match=words):
        open_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pickle_that_would_execute_code_is_refused_and_executes_nothing(legacy: bool, tmp_path: Path) -> None:
    flag = tmp_path / "executed"
    content = {"model": tensors(vit()), "args": Runs(f"touch {flag}")}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=r"would run posix\.system, and nothing in it was executed"):
        open_weights(tmp_path / "w.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Runs(f"touch {flag}"), protocol=2))
    with pytest.raises(UserError):
        open_weights(tmp_path / "plain.pkl")
    assert not flag.exists()


def test_a_whole_pickled_model_is_refused_with_what_to_save_instead(tmp_path: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"whole pickled model.*torch\.save\(model\.state_dict\(\)"):
        open_weights(tmp_path / "model.pth")


def test_half_downloads(tmp_path: Path) -> None:
    network = vit()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    save_file(tensors(network), tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for share in (0.1, 0.5, 0.99):
            (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(UserError, match="damaged or only partly there"):
                open_weights(tmp_path / name)


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    names = tensors(vit())
    half = len(names) // 2
    parts = {
        "model-00001-of-00002.safetensors": list(names)[:half],
        "model-00002-of-00002.safetensors": list(names)[half:],
    }
    for file, own in parts.items():
        save_file({name: names[name] for name in own}, tmp_path / file)
    index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text("{}")
    load_network(open_weights(tmp_path), arch="deit_s16", settings=VIT)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"1 of 2 shards .* missing \(model-00002-of-00002.safetensors\)"):
        open_weights(tmp_path)
    with pytest.raises(UserError, match="holds no weights"):
        open_weights(tmp_path.parent)


def damaged(names: dict[str, Tensor], kind: str, victim: str) -> dict[str, Tensor]:
    changed = dict(names)
    one = changed.pop(victim)
    if kind == "renamed":
        changed[f"{victim}x"] = one
    elif kind == "reshaped":
        changed[victim] = one.reshape(-1, 1)
    elif kind == "transposed":
        changed[victim] = one.transpose(0, -1).contiguous() if one.ndim > 1 else one[:-1]
    elif kind == "nan":
        changed[victim] = one.clone().flatten().index_fill(0, torch.tensor([0]), float("nan")).view_as(one)
    elif kind == "infinite":
        changed[victim] = torch.full_like(one, float("inf"))
    elif kind == "integers":
        changed[victim] = one.to(torch.int8)
    elif kind == "shorter":
        changed[victim] = one[..., : one.shape[-1] // 2]
    elif kind == "longer":
        changed[victim] = torch.cat([one, one])
    elif kind == "twice":
        changed[victim] = one
        changed[f"module.{victim}"] = one
    return changed


KINDS = ["missing", "renamed", "reshaped", "transposed", "nan", "infinite", "integers", "shorter", "longer", "twice"]
VICTIMS = [
    "vit:cls_token", "vit:pos_embed", "vit:patch_embed.proj.weight", "vit:blocks.1.attn.qkv.weight",
    "vit:blocks.0.norm1.bias", "vit:norm.weight", "resnet:conv1.weight", "resnet:bn1.running_var",
    "resnet:layer2.0.downsample.0.weight", "resnet:layer4.1.conv2.weight",
]  # fmt: skip


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_damaged_file_gives_a_network(
    kind: str, victim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_bench.weights.loading.fitting", lambda candidate, most: [])  # takes a second
    network, _, name = victim.partition(":")
    names = tensors(vit() if network == "vit" else resnet())
    square = names[name].ndim > 1 and names[name].shape == names[name].transpose(0, -1).shape
    assert not (kind == "transposed" and square)
    torch.save({"model": damaged(names, kind, name)}, tmp_path / "w.pth")
    arch, settings = ("deit_s16", VIT) if network == "vit" else ("resnet18", {**RESNET, "stem": "imagenet"})
    with pytest.raises(UserError) as refused:
        load_network(open_weights(tmp_path / "w.pth"), arch=arch, settings=settings)
    assert name in str(refused.value) or "no network whose names are known" in str(refused.value)


def test_another_architecture_is_refused_with_the_one_that_fits(tmp_path: Path) -> None:
    torch.save(tensors(vit()), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"does not fit deit_ti16: .*It fits --arch deit_s16 --set backbone"):
        load_network(open_weights(tmp_path / "w.pth"), arch="deit_ti16")
    with pytest.raises(UserError, match="does not exist"):
        open_weights(tmp_path / "other.pth")
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    with pytest.raises(UserError, match=r"NumPy's .npz"):
        open_weights(tmp_path / "w.npz")


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.int8])
def test_inspect_says_how_tensors_are_stored(
    kind: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_bench.weights.architectures.fitting", lambda candidate: [])  # takes a second
    torch.save({name: tensor.to(kind) for name, tensor in tensors(vit()).items()}, tmp_path / "w.pth")
    shown = " ".join(CliRunner().invoke(app, ["inspect", str(tmp_path / "w.pth")]).output.split())
    assert (f", stored as {str(kind).removeprefix('torch.')}" in shown) == (kind is not torch.float32)
