"""solo-learn's checkpoints: what decides features beside the tensors is read from args.json, or asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_bench.errors import UserError
from ssl_bench.recipes.starting import require_start_fits
from ssl_bench.weights.facts import sine_cosine_positions
from ssl_bench.weights.initial import initial_state
from ssl_bench.weights.loading import load_network, open_weights
from ssl_bench_plugins.backbones.deit import DeitS16, DeitTi16, ViT, ViTSettings
from ssl_bench_plugins.backbones.resnet import ResNet18, ResNetSettings
from tests.weights.networks import RESNET, heads, tensors, varied

TINY: dict[str, Any] = {"depth": 1}
SMALL_ARGS = {"method": "mocov3", "backbone": {"name": "vit_small", "kwargs": {}}, "data": {"dataset": "imagenet100"}}


def fixed_positions(dim: int, side: int, row_first: bool) -> Tensor:
    """The table of solo-learn's MoCo v3 (row first) and MAE, entry by entry."""
    table = torch.zeros(1, 1 + side * side, dim, dtype=torch.float64)
    quarter = dim // 4
    for row in range(side):
        for column in range(side):
            for k in range(quarter):
                for half, place in enumerate((row, column) if row_first else (column, row)):
                    angle = torch.tensor(place / 10000 ** (k / quarter), dtype=torch.float64)
                    table[0, 1 + row * side + column, half * dim // 2 + k] = angle.sin()
                    table[0, 1 + row * side + column, half * dim // 2 + quarter + k] = angle.cos()
    return table.float()


def lightning(path: Path, names: dict[str, Tensor], args: dict[str, Any] | None = None) -> Path:
    torch.save({"pytorch-lightning_version": "2.1.2", "state_dict": names}, path)
    if args is not None:
        (path.parent / "args.json").write_text(json.dumps(args))
    return path


def vit_of(kind: type[ViT], number: int, row_first: bool) -> ViT:
    """`kind` with `number` heads and fixed positions."""
    torch.manual_seed(0)
    network = varied(kind(ViTSettings(heads=number, **TINY), image_px=32))
    table = fixed_positions(kind.own_dim, 2, row_first)
    network.load_state_dict({**network.state_dict(), "network.pos_embed": table})
    return network  # type: ignore[return-value]


@pytest.mark.parametrize("kind", [DeitTi16, DeitS16])
@pytest.mark.parametrize("library", ["solo-learn", "mmselfsup"])
def test_moco_v3s_fixed_positions_mean_12_heads_in_every_format(kind: type[ViT], library: str, tmp_path: Path) -> None:
    good = vit_of(kind, 12, row_first=True)
    arch = "deit_ti16" if kind is DeitTi16 else "deit_s16"
    names = {**tensors(good, "backbone."), **heads("", "projector.0.weight")}
    if library == "solo-learn":
        lightning(tmp_path / "w.ckpt", names)
    else:
        torch.save({"meta": {}, "state_dict": names}, tmp_path / "w.ckpt")
    recognized = open_weights(tmp_path / "w.ckpt")
    with pytest.raises(UserError, match=r"12 heads, and deit_\w+ has \d: .* backbone\.heads=12"):
        load_network(recognized, arch=arch, settings=TINY)
    loaded = load_network(recognized, arch=arch, settings={**TINY, "heads": 12})
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded.backbone(images), good(images), rtol=0, atol=1e-6)


def test_fixed_positions_are_known_in_half_precision() -> None:
    for kind in (torch.float16, torch.bfloat16):
        for row_first, whose in ((True, "mocov3"), (False, "mae")):
            assert sine_cosine_positions({"pos_embed": fixed_positions(192, 4, row_first).to(kind)}) == whose


def test_heads_of_a_small_mae_are_asked_for_and_read_from_args_json(tmp_path: Path) -> None:
    good = vit_of(DeitS16, 12, row_first=False)
    names = {**tensors(good, "backbone."), **heads("decoder.", "decoder_pred.weight"), **heads("", "classifier.weight")}
    path = lightning(tmp_path / "mae.ckpt", names)
    recognized = open_weights(path)
    assert recognized.method == "mae"
    with pytest.raises(UserError, match=r"how many attention heads .* backbone\.heads=6 or --set backbone\.heads=12"):
        load_network(recognized, arch="deit_s16", settings=TINY)
    asked = load_network(recognized, arch="deit_s16", settings={**TINY, "heads": 12})
    lightning(path, names, {"method": "mae", "backbone": {"name": "vit_small"}, "data": {"dataset": "imagenet100"}})
    with pytest.raises(UserError, match=r"Evidence: solo-learn's args\.json beside it: vit_small of mae"):
        load_network(open_weights(path), arch="deit_s16", settings={**TINY, "heads": 6})
    read = load_network(open_weights(path), arch="deit_s16", settings={**TINY, "heads": 12})
    images = torch.randn(2, 3, 32, 32)
    for loaded in (asked, read):
        torch.testing.assert_close(loaded.backbone(images), good(images), rtol=0, atol=1e-6)
        assert loaded.backbone.positions == "mae"
        assert loaded.preprocessing.interpolation == "bilinear"


def cifar_resnet(padding: int) -> ResNet18:
    """With the stem that solo/methods/base.py puts into torchvision's ResNet-18, an eighth as wide."""
    torch.manual_seed(0)
    network = ResNet18(ResNetSettings(stem="cifar", **RESNET), image_px=32)
    network.network.conv1 = nn.Conv2d(3, 8, kernel_size=3, stride=1, padding=padding, bias=False)
    return varied(network)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "args",
    [
        {"method": "mocov2plus", "backbone": {"name": "resnet18"}, "data": {"dataset": "cifar100"}},
        {"method": "mocov2plus", "backbone": "resnet18", "dataset": "cifar10", "backbone_args": {"cifar": True}},
    ],
    ids=["nested", "flat"],
)
def test_the_stem_for_cifar_pads_by_2_and_images_are_normalized_as_cifars(args: dict[str, Any], tmp_path: Path) -> None:
    good = cifar_resnet(2)
    path = lightning(tmp_path / "w.ckpt", tensors(good, "backbone."), args)
    recognized = open_weights(path)
    loaded = load_network(recognized, arch="resnet18", settings=RESNET)
    assert recognized.method == "mocov2"
    assert loaded.config.model_dump()["stem_padding"] == 2
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded.backbone(images), good(images), rtol=0, atol=1e-6)
    seen = loaded.preprocessing
    assert (seen.mean, seen.std) == ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)) == (
        loaded.backbone.mean, loaded.backbone.std,
    )  # fmt: skip
    assert (seen.resize_px, seen.crop_px) == (32, 32)


def test_without_args_json_the_padding_of_a_small_stem_is_asked_for(tmp_path: Path) -> None:
    for padding in (1, 2):
        good = cifar_resnet(padding)
        path = lightning(tmp_path / "w.ckpt", tensors(good, "backbone."))
        with pytest.raises(UserError, match=r"stem pads images.*stem_padding=2 or --set backbone\.stem_padding=1"):
            load_network(open_weights(path), arch="resnet18", settings=RESNET)
        loaded = load_network(open_weights(path), arch="resnet18", settings={**RESNET, "stem_padding": padding})
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(loaded.backbone(images), good(images), rtol=0, atol=1e-6)


def test_stl_10_is_squeezed_into_a_square_of_96_px_and_imagenet_cropped(tmp_path: Path) -> None:
    names = tensors(vit_of(DeitS16, 12, row_first=True), "backbone.")
    settings = {**TINY, "heads": 12}
    path = lightning(tmp_path / "w.ckpt", names, {**SMALL_ARGS, "data": {"dataset": "stl10"}})
    seen = load_network(open_weights(path), arch="deit_s16", settings=settings).preprocessing
    assert (seen.resize_px, seen.crop_px, seen.squash, seen.mean) == (96, 96, True, (0.4914, 0.4823, 0.4466))
    seen = load_network(
        open_weights(lightning(path, names, SMALL_ARGS)), arch="deit_s16", settings=settings
    ).preprocessing
    assert (seen.crop_px, seen.interpolation, seen.squash) == (32, "bilinear", False)
    (tmp_path / "args.json").write_text('{"lr": 3}')  # of another program
    assert open_weights(path).solo_learn is None
    (tmp_path / "args.json").write_text("{")
    with pytest.raises(UserError, match=r"args\.json is damaged"):
        open_weights(path)


def test_a_run_that_starts_from_them_is_asked_the_same(tmp_path: Path) -> None:
    path = lightning(tmp_path / "w.ckpt", tensors(cifar_resnet(2), "backbone."))
    asked = initial_state(path)
    lightning(
        path, tensors(cifar_resnet(2), "backbone."), {"method": "byol", "backbone": "resnet18", "dataset": "cifar10"}
    )
    said = initial_state(path)
    for initial, message in (
        (asked, "says how its 3 x 3 stem pads"),
        (said, "a network with backbone.stem_padding = 2"),
    ):
        with pytest.raises(UserError, match=message):
            require_start_fits(initial, ResNet18, ResNetSettings(**RESNET), 32, "resnet18")
        require_start_fits(initial, ResNet18, ResNetSettings(stem_padding=2, **RESNET), 32, "resnet18")
    (tmp_path / "args.json").unlink()
    mae = tensors(vit_of(DeitS16, 12, row_first=False), "backbone.")
    initial = initial_state(lightning(path, {**mae, **heads("decoder.", "decoder_pred.weight")}))
    with pytest.raises(UserError, match="says how many attention heads"):
        require_start_fits(initial, DeitS16, ViTSettings(**TINY), 32, "deit_s16")
    require_start_fits(initial, DeitS16, ViTSettings(heads=12, **TINY), 32, "deit_s16")
