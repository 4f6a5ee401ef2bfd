"""Which of several networks is read, and as whose: the user's --as METHOD for files that do not say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssl_bench.errors import UserError
from ssl_bench.weights.loading import load_network, open_weights
from ssl_bench_plugins.backbones.deit import DeitS16, ViTSettings
from tests.weights.networks import RESNET, VIT, heads, resnet, tensors, varied, vit
from tests.weights.test_formats import mmselfsup, solo_learn, vissl, vissl_dino
from tests.weights.test_solo_learn import fixed_positions


@pytest.mark.parametrize("make", [solo_learn, mmselfsup, vissl_dino])
def test_as_method_counts_in_formats_that_name_none(make: Callable[..., Any], tmp_path: Path) -> None:
    good = vit(0)  # with DINO's rule for positions
    torch.save(make(good, vit(1)), tmp_path / "w.pth")
    silent, asked = open_weights(tmp_path / "w.pth"), open_weights(tmp_path / "w.pth", method="dino")
    assert (silent.method, asked.method) == ("", "dino")
    assert [one.name for one in silent.candidates] == [one.name for one in asked.candidates]
    loaded = load_network(asked, arch="deit_s16", settings=VIT)
    assert (loaded.preprocessing.interpolation, loaded.backbone.positions) == ("bicubic", "dino")
    for px in (32, 96):
        images = torch.randn(2, 3, px, px)
        torch.testing.assert_close(loaded.backbone(images), good(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", [None, "dino"])
def test_as_method_does_not_choose_among_networks_that_nothing_tells_apart(method: str | None, tmp_path: Path) -> None:
    torch.save({**tensors(vit(0), "left."), **tensors(vit(1), "right.")}, tmp_path / "two.pth")
    with pytest.raises(UserError, match=r"holds 2 networks .* choose one"):
        load_network(open_weights(tmp_path / "two.pth", method=method), arch="deit_s16", settings=VIT)


@pytest.mark.parametrize("prefixes", [("a_net.", "b_net."), ("student_net.vit.", "teacher_net.vit.")])
def test_networks_of_no_known_place_are_not_chosen_by_the_alphabet(prefixes: tuple[str, str], tmp_path: Path) -> None:
    names = {**tensors(vit(0), prefixes[0]), **tensors(vit(1), prefixes[1])}
    torch.save({"pytorch-lightning_version": "2", "state_dict": names}, tmp_path / "two.ckpt")
    with pytest.raises(UserError, match=r"holds 2 networks .* choose one"):
        load_network(open_weights(tmp_path / "two.ckpt"), arch="deit_s16", settings=VIT)


def byol(good: nn.Module, other: nn.Module) -> dict[str, Any]:
    """github.com/sthalles/PyTorch-BYOL."""
    return {
        "target_network_state_dict": tensors(other, "encoder."),
        "online_network_state_dict": {**tensors(good, "encoder."), **heads("projetion.net.", "0.weight")},
    }


def byol_pytorch(good: nn.Module, other: nn.Module) -> dict[str, Any]:
    """github.com/lucidrains/byol-pytorch: `net` and `online_encoder.net` are one network."""
    return {**tensors(other, "target_encoder.net."), **tensors(good, "net."), **tensors(good, "online_encoder.net.")}


def lightly_dino(good: nn.Module, other: nn.Module) -> dict[str, Any]:
    """examples/pytorch/dino.py of lightly."""
    return {**tensors(other, "student_backbone."), **tensors(good, "teacher_backbone.")}


def vissl_moco(good: nn.Module, other: nn.Module) -> dict[str, Any]:
    content = vissl(good, other)
    content["classy_state_dict"]["loss"] = tensors(other, "moco_encoder.trunk._feature_blocks.")
    return content


def model_and_average(good: nn.Module, other: nn.Module) -> dict[str, Any]:
    return {"model": tensors(good), "model_ema": tensors(other)}


@pytest.mark.parametrize("make", [byol, byol_pytorch, lightly_dino, vissl_moco, model_and_average])
def test_the_evaluated_network_of_two_is_preferred(make: Callable[..., Any], tmp_path: Path) -> None:
    good, other = resnet(0), resnet(1)
    torch.save(make(good, other), tmp_path / "w.pth")
    loaded = load_network(open_weights(tmp_path / "w.pth"), arch="resnet18", settings=RESNET)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(loaded.backbone(images), good(images), rtol=0, atol=1e-6)


def by_plain_bicubic(network: Any, images: Tensor) -> Tensor:
    """mmpretrain's resize_pos_embed and DeiT's main.py: F.interpolate(mode="bicubic", align_corners=False)."""
    rows, columns = images.shape[-2] // 16, images.shape[-1] // 16
    table, side = network.pos_embed, round((network.pos_embed.shape[1] - 1) ** 0.5)
    as_map = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = interpolate(as_map, size=(rows, columns), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    tokens = network.patch_embed.proj(images).flatten(2).transpose(1, 2) + patches
    tokens = torch.cat([(network.cls_token + table[:, :1]).expand(len(images), -1, -1), tokens], dim=1)
    return network.norm(network.blocks(tokens))[:, 0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", [None, "deit"])
def test_mmpretrain_and_deit_resample_positions_without_antialiasing(method: str | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    good: Any = varied(DeitS16(ViTSettings(**VIT), image_px=64))
    torch.save(tensors(good) if method else mmselfsup(good, good), tmp_path / "w.pth")
    loaded = load_network(open_weights(tmp_path / "w.pth", method=method), arch="deit_s16", settings=VIT)
    for height, width in ((32, 32), (80, 96)):
        images = torch.randn(2, 3, height, width)
        expected = by_plain_bicubic(good.network, images)
        torch.testing.assert_close(loaded.backbone(images), expected, rtol=0, atol=1e-5)


def test_maes_fixed_positions_are_known_in_other_formats(tmp_path: Path) -> None:
    good = vit(0)
    table = fixed_positions(64, 2, row_first=False)
    good.load_state_dict({**good.state_dict(), "network.pos_embed": table})
    torch.save(solo_learn(good, good), tmp_path / "w.pth")
    assert load_network(open_weights(tmp_path / "w.pth"), arch="deit_s16", settings=VIT).backbone.positions == "mae"


def test_moco_v1_and_v2_are_told_apart_by_their_heads(tmp_path: Path) -> None:
    for method, head in (("mocov1", "fc.weight"), ("mocov2", "fc.0.weight"), ("mocov2", "other.weight")):
        names = {**tensors(resnet(), "module.encoder_q."), **heads("module.encoder_q.", head)}
        torch.save({"state_dict": names}, tmp_path / "w.pth")
        assert open_weights(tmp_path / "w.pth").method == method


def test_plain_files_of_residual_networks_and_of_moco_v3_are_resized_bilinear(tmp_path: Path) -> None:
    torch.save(tensors(resnet()), tmp_path / "r.pth")
    for method, interpolation in ((None, "bilinear"), ("dino", "bicubic"), ("mocov2", "bilinear")):
        loaded = load_network(open_weights(tmp_path / "r.pth", method=method), arch="resnet18", settings=RESNET)
        assert loaded.preprocessing.interpolation == interpolation
        assert ("assumed" in loaded.preprocessing.source) == (method is None)
        assert any("resized bilinear" in note for note in loaded.notes) == (method is None)
    good = vit()
    for row_first, interpolation in ((True, "bilinear"), (False, "bicubic")):
        table = fixed_positions(64, 2, row_first)
        torch.save({"model": {**tensors(good), "pos_embed": table}}, tmp_path / "v.pth")
        loaded = load_network(open_weights(tmp_path / "v.pth"), arch="deit_s16", settings=VIT)
        assert loaded.preprocessing.interpolation == interpolation
