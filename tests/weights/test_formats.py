"""Checkpoints as each method's authors save them: recognized, the evaluated network read, features unchanged.

Names as the authors' code at the commits in `ssl_bench.weights.formats` writes them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ssl_bench.errors import UserError
from ssl_bench.weights.facts import sine_cosine_positions
from ssl_bench.weights.formats import FORMATS
from ssl_bench.weights.loading import load_network, open_weights
from ssl_bench_plugins.backbones.deit import DeitS16, ViTSettings
from tests.weights.networks import RESNET, VIT, heads, resnet, tensors, varied, vit

Content = dict[str, Any]
Case = tuple[str, str, Callable[[nn.Module, nn.Module], Content]]


def dino(good: nn.Module, other: nn.Module) -> Content:
    return {
        "student": {
            **tensors(other, "module.backbone."),
            **heads("module.head.", "mlp.0.weight", "last_layer.weight_v"),
        },
        "teacher": {**tensors(good, "backbone."), **heads("head.", "mlp.0.weight", "last_layer.weight_v")},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
        "epoch": 800,
        "args": argparse.Namespace(arch="vit_small", lr=np.float64(5e-4), local_crops_number=10),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }


def ibot(good: nn.Module, other: nn.Module) -> Content:
    content = dino(good, other)
    content["ibot_loss"] = {"center": torch.zeros(1, 8), "center2": torch.zeros(1, 1, 8)}
    content["student"]["module.backbone.masked_embed"] = torch.zeros(1, 64)
    content["teacher"]["backbone.masked_embed"] = torch.zeros(1, 64)
    del content["dino_loss"]
    return content


def moco_v2(good: nn.Module, other: nn.Module) -> Content:
    names = {
        **tensors(good, "module.encoder_q."), **heads("module.encoder_q.fc.", "0.weight", "2.weight"),
        **tensors(other, "module.encoder_k."), **heads("module.", "queue", "queue_ptr"),
    }  # fmt: skip
    return {"epoch": 200, "arch": "resnet50", "state_dict": names, "optimizer": {}}


def moco_v1(good: nn.Module, other: nn.Module) -> Content:
    content = moco_v2(good, other)
    names = {name: one for name, one in content["state_dict"].items() if ".fc." not in name}
    return content | {"state_dict": {**names, **heads("module.encoder_q.fc.", "weight", "bias")}}


def moco_v3(good: nn.Module, other: nn.Module) -> Content:
    names = {
        **tensors(good, "module.base_encoder."), **heads("module.base_encoder.head.", "0.weight"),
        **tensors(other, "module.momentum_encoder."), **heads("module.predictor.", "0.weight"),
    }  # fmt: skip
    return {"epoch": 300, "arch": "vit_small", "state_dict": names}


def simsiam(good: nn.Module, other: nn.Module) -> Content:
    names = {**tensors(good, "module.encoder."), **heads("module.", "encoder.fc.0.weight", "predictor.0.weight")}
    return {"epoch": 100, "arch": "resnet50", "state_dict": names, "optimizer": {}}


def swav(good: nn.Module, other: nn.Module) -> Content:
    return {**tensors(good, "module."), **heads("module.", "projection_head.0.weight", "prototypes.weight")}


def deepcluster(good: nn.Module, other: nn.Module) -> Content:
    names = heads("module.", "projection_head.0.weight", "prototypes.prototypes0.weight")
    return {"epoch": 1, "state_dict": {**tensors(good, "module."), **names}}


def barlow(good: nn.Module, other: nn.Module) -> Content:
    names = heads("module.", "projector.0.weight", "bn.running_mean")
    return {"epoch": 1, "model": {**tensors(good, "module.backbone."), **names}, "optimizer": {}}


def vicreg(good: nn.Module, other: nn.Module) -> Content:
    return {"epoch": 1, "model": {**tensors(good, "module.backbone."), **heads("module.", "projector.0.weight")}}


def vissl(good: nn.Module, other: nn.Module) -> Content:
    trunk = tensors(good, "_feature_blocks.")
    return {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": heads("0.", "clf.weight")}}}}


def vissl_dino(good: nn.Module, other: nn.Module) -> Content:
    content = vissl(other, good)
    content["classy_state_dict"]["base_model"]["model"]["trunk"] = tensors(other)
    loss = {**tensors(good, "momentum_teacher.module.trunk."), **heads("", "momentum_teacher.module.heads.0.weight")}
    content["classy_state_dict"]["loss"] = loss
    return content


def lightning_mae(good: nn.Module, other: nn.Module) -> Content:
    names = {**tensors(good, "backbone.vit."), **heads("decoder.", "mask_token", "decoder_pred.weight")}
    return {"pytorch-lightning_version": "2.1.2", "state_dict": names}


def lightly_ibot(good: nn.Module, other: nn.Module) -> Content:
    names = {
        **tensors(other, "student_backbone.vit."), **tensors(good, "teacher_backbone.vit."),
        **heads("", "student_head.layers.0.weight", "teacher_head.layers.0.weight"),
    }  # fmt: skip
    return {"pytorch-lightning_version": "2.1.2", "state_dict": names}


def mmselfsup(good: nn.Module, other: nn.Module) -> Content:
    names = {**tensors(good, "backbone."), **heads("", "neck.fc0.weight", "head.fc.weight")}
    return {"meta": {"version": "1.0"}, "state_dict": names}


def mae(good: nn.Module, other: nn.Module) -> Content:
    names = {
        **tensors(good),
        **heads("", "mask_token", "decoder_pos_embed", "decoder_pred.weight", "decoder_norm.bias"),
    }
    return {"model": names, "epoch": 799, "args": argparse.Namespace(mask_ratio=0.75)}


def solo_learn(good: nn.Module, other: nn.Module) -> Content:
    names = {
        **tensors(other, "momentum_backbone."), **tensors(good, "backbone."),
        **heads("", "projector.0.weight", "momentum_projector.0.weight", "classifier.weight"),
    }  # fmt: skip
    return {"pytorch-lightning_version": "2.1.2", "state_dict": names, "hyper_parameters": {"method": "byol"}}


def dinov2(good: nn.Module, other: nn.Module) -> Content:
    def chunked(network: nn.Module, prefix: str) -> Content:
        named = tensors(network)
        return {f"{prefix}{name.replace('blocks.', 'blocks.0.')}": one for name, one in named.items()}

    return {
        "teacher": {**chunked(good, "backbone."), **heads("", "backbone.mask_token", "dino_head.mlp.0.weight")},
        "student": {**chunked(other, "backbone."), **heads("", "dino_head.mlp.0.weight")},
    }


def wrapped_everywhere(good: nn.Module, other: nn.Module) -> Content:
    return {"state_dict": tensors(good, "model._orig_mod.module.encoder.")}


def sequential(good: nn.Module, other: nn.Module) -> Content:
    """lightly's tutorials: nn.Sequential(*list(resnet.children())[:-1])."""
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    named = {}
    for name, one in tensors(good).items():
        first, _, rest = name.partition(".")
        named[f"backbone.{places[first]}.{rest}"] = one
    return {"pytorch-lightning_version": "2", "state_dict": {**named, **heads("", "projection_head.layers.0.weight")}}


CASES: list[Case] = [
    ("vit", "official DINO, full checkpoint (epoch 800)", dino),
    ("resnet", "official DINO, full checkpoint (epoch 800)", dino),
    ("vit", "iBOT, full checkpoint (epoch 800)", ibot),
    ("vit", "DINOv2, training checkpoint", dinov2),
    ("vit", "MoCo v3 (epoch 300)", moco_v3),
    ("resnet", "MoCo v1 (epoch 200)", moco_v1),
    ("resnet", "MoCo v2 (epoch 200)", moco_v2),
    ("resnet", "SimSiam (epoch 100)", simsiam),
    ("resnet", "SwAV", swav),
    ("resnet", "DeepCluster v2 (epoch 1)", deepcluster),
    ("resnet", "Barlow Twins (epoch 1)", barlow),
    ("resnet", "VICReg (epoch 1)", vicreg),
    ("resnet", "VISSL", vissl),
    ("resnet", "mmselfsup or mmpretrain", mmselfsup),
    ("vit", "MAE, full checkpoint (epoch 799)", mae),
    ("vit", "MAE, PyTorch Lightning (solo-learn, lightly)", lightning_mae),
    ("vit", "VISSL", vissl_dino),
    ("vit", "PyTorch Lightning (solo-learn, lightly, stable-pretraining and others)", lightly_ibot),
    ("resnet", "PyTorch Lightning (solo-learn, lightly, stable-pretraining and others)", solo_learn),
    ("vit", "PyTorch Lightning (solo-learn, lightly, stable-pretraining and others)", solo_learn),
    ("resnet", "PyTorch Lightning (solo-learn, lightly, stable-pretraining and others)", sequential),
    ("vit", "state dict with the names of timm's ViT", wrapped_everywhere),
    ("resnet", "state dict with the names of torchvision's ResNet", wrapped_everywhere),
]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[2].__name__}-{case[0]}")
def test_the_evaluated_network_is_read_whole_and_unchanged(case: Case, legacy: bool, tmp_path: Path) -> None:
    kind, words, make = case
    good, other = (vit(0), vit(1)) if kind == "vit" else (resnet(0), resnet(1))
    path = tmp_path / "checkpoint.whatever"
    torch.save(make(good, other), path, _use_new_zipfile_serialization=not legacy)
    recognized = open_weights(path)
    assert recognized.words == words
    arch, settings = ("deit_s16", VIT) if kind == "vit" else ("resnet18", RESNET)
    loaded = load_network(recognized, arch=arch, settings=settings)
    for px in (64, 96):
        images = torch.randn(2, 3, px, px)
        with torch.no_grad():
            reference = good(images)
            if px == 64 and loaded.backbone.positions != "dino" and kind == "vit":
                continue  # another rule for positions, tested beside its source
            if kind == "resnet" or loaded.backbone.positions == "dino":
                torch.testing.assert_close(loaded.backbone(images), reference, rtol=0, atol=1e-6)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images), good(images), rtol=0, atol=1e-6)


def test_every_format_has_a_case() -> None:
    shown = {words.partition(" (epoch")[0] for _, words, _ in CASES}
    without = {form.name for form in FORMATS} - shown
    assert without == {  # theirs are in test_libraries.py, or need networks of timm's own sizes
        "DINOv2, backbone", "DINOv2 with registers, backbone", "DINOv3, backbone",
        "official DINO, full checkpoint of a network without heads",
    }  # fmt: skip


def test_another_network_of_the_file_is_read_by_its_key(tmp_path: Path) -> None:
    good, other = vit(0), vit(1)
    torch.save(dino(good, other), tmp_path / "dino.pth")
    recognized = open_weights(tmp_path / "dino.pth")
    assert [one.name for one in recognized.candidates] == ["teacher", "student"]
    loaded = load_network(recognized, arch="deit_s16", settings=VIT, key="student")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded.backbone(images), other(images), rtol=0, atol=1e-6)
    with pytest.raises(UserError, match=r"no network 'teachr'. Did you mean 'teacher'\? It holds: teacher, student"):
        recognized.choose("teachr")
    assert recognized.settings["arch"] == "vit_small"
    assert recognized.settings["local_crops_number"] == 10


def test_two_networks_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    torch.save({**tensors(vit(0), "left."), **tensors(vit(1), "right.")}, tmp_path / "two.pth")
    with pytest.raises(UserError, match=r"holds 2 networks .* choose one, e.g. --key left"):
        load_network(open_weights(tmp_path / "two.pth"), arch="deit_s16", settings=VIT)


def test_moco_v3_has_twice_the_heads_and_the_shapes_do_not_say_so(tmp_path: Path) -> None:
    small = {"depth": 1}
    network = DeitS16(ViTSettings(heads=12, **small), image_px=32).eval()
    torch.save(moco_v3(network, network), tmp_path / "vit-s.pth.tar")
    recognized = open_weights(tmp_path / "vit-s.pth.tar")
    with pytest.raises(UserError, match=r"12 heads, and deit_s16 has 6: .* keys as MoCo v3 saves them"):
        load_network(recognized, arch="deit_s16", settings=small)
    loaded = load_network(recognized, arch="deit_s16", settings={**small, "heads": 12})
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(loaded.backbone(images), network(images), rtol=0, atol=1e-6)
    accepted = load_network(recognized, arch="deit_s16", settings=small, accept_mismatch=True)
    assert "evaluated with 6 heads although" in accepted.notes[-1]


def test_the_documentation_has_a_row_for_every_format() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "weights.md").read_text()
    for form in FORMATS:
        row = next(line for line in page.splitlines() if line.startswith(f"| {form.name} | "))
        assert all(f"`{name}`" in row for name, _ in form.networks)
        assert not form.method or f"{form.interpolation}, {form.positions}" in row


@pytest.mark.parametrize("method", ["dino", "mae", None])
def test_a_file_that_names_no_method_is_read_as_the_authors_of_a_given_one_do(
    method: str | None, tmp_path: Path
) -> None:
    """The released backbone of DINO and encoder of MAE have timm's names: only a user can tell them apart."""
    torch.manual_seed(0)
    rule: Any = method or "timm"
    good = varied(DeitS16(ViTSettings(positions=rule, **VIT), image_px=32))
    torch.save(tensors(good), tmp_path / "backbone.pth")
    loaded = load_network(open_weights(tmp_path / "backbone.pth", method=method), arch="deit_s16", settings=VIT)
    for px in (32, 64):
        images = torch.randn(2, 3, px, px)
        with torch.no_grad():
            torch.testing.assert_close(loaded.backbone(images), good(images), rtol=0, atol=1e-6)
    assert any("--as METHOD" in note for note in loaded.notes) == (method is None)
    assert ("assumed" in loaded.preprocessing.source) == (method is None)
    assert loaded.preprocessing.interpolation == "bicubic"


def test_whose_fixed_positions_a_table_holds() -> None:
    """MAE's get_2d_sincos_pos_embed: half of the channels of the column, then of the row; MoCo v3's the row first."""
    side, dim = 3, 16

    def channels(place: int) -> list[float]:
        angles = [place / 10000 ** (k / (dim // 4)) for k in range(dim // 4)]
        return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]

    rows = [[0.0] * dim] + [channels(x) + channels(y) for y in range(side) for x in range(side)]
    mae_table = torch.tensor([rows])
    assert sine_cosine_positions({"pos_embed": mae_table}) == "mae"
    moco_table = torch.cat([mae_table[..., dim // 2 :], mae_table[..., : dim // 2]], dim=-1)
    assert sine_cosine_positions({"pos_embed": moco_table}) == "mocov3"
    assert sine_cosine_positions({"pos_embed": torch.randn(1, 10, 16)}) is None


def test_mae_without_its_decoder_is_known_by_its_positions(tmp_path: Path) -> None:
    good = varied(DeitS16(ViTSettings(positions="mae", **VIT), image_px=32))
    x = torch.arange(2.0).repeat(2)[:, None] / 10000 ** (torch.arange(16.0) / 16)
    y = torch.arange(2.0).repeat_interleave(2)[:, None] / 10000 ** (torch.arange(16.0) / 16)
    table = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)
    good.load_state_dict({**good.state_dict(), "network.pos_embed": torch.cat([torch.zeros(1, 64), table])[None]})
    torch.save({"model": tensors(good)}, tmp_path / "mae_pretrain.pth")
    loaded = load_network(open_weights(tmp_path / "mae_pretrain.pth"), arch="deit_s16", settings=VIT)
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images), good(images), rtol=0, atol=1e-6)
