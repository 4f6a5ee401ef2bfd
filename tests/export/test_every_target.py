"""Every registered backbone for every target: the library alone gives equal features, or the export says why not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_bench import registry
from ssl_bench.errors import NotExpressible
from ssl_bench.export.exporting import write_export
from ssl_bench.export.source import Source, at_size
from ssl_bench.export.targets import TARGETS
from ssl_bench.weights.loading import load_network, open_weights
from ssl_bench.weights.whole import norm_eps, set_norm_eps
from tests.export.networks import source

OWN = [
    plugin.name
    for plugin in registry.plugins("backbone")
    if plugin.distribution == registry.HOME and registry.backbone(plugin.name).trainable
]
RESIDUAL = [name for name in OWN if name.startswith("resnet")]
REFUSED = {(name, target) for name in RESIDUAL for target in ("timm", "torchvision")}
"""Narrow residual networks: neither library has them."""


def by_the_readme(folder: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The features that the README's code computes in that folder."""
    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[0]
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"images": images.numpy() if "onnxruntime" in code else images}
    with torch.no_grad():
        exec(code, names)
    return torch.as_tensor(names["features"])


def assert_same(given: Tensor, network: Source, images: Tensor) -> None:
    """To 1e-5 of the largest feature, and not trivially."""
    with torch.no_grad():
        expected = network.backbone(images)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert (expected[0] - expected[1]).abs().max() > 1e-3


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", OWN)
def test_equal_features_or_a_reason(name: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in RESIDUAL:  # one block a stage: the stages and their names are what is tested
        monkeypatch.setattr(registry.backbone(name), "layers", (1, 1, 1, 1))
    network, folder = source(name), tmp_path / "out"
    if (name, target) in REFUSED:
        with pytest.raises(
            NotExpressible, match=rf"{name} cannot be exported to {target}: .*(channels|blocks).* --to onnx"
        ):
            write_export(network, target, folder)
        assert not list(tmp_path.iterdir())
        return
    if not any(True for _ in network.backbone.parameters()):
        with pytest.raises(NotExpressible, match=f"{name} cannot be exported: it has no weights"):
            write_export(network, target, folder)
        assert not list(tmp_path.iterdir())
        return
    exported, _ = write_export(network, target, folder)
    assert next(iter(exported.checked)) == network.image_px
    side = max(exported.checked)
    images = torch.randn(2, 3, side, side)
    if target != "safetensors":
        assert_same(by_the_readme(folder, images, monkeypatch), network, images)
    assert_same(load_network(open_weights(folder)).backbone(images), network, images)


@pytest.mark.parametrize("target", TARGETS)
def test_positions_of_another_rule_are_for_one_size_which_can_be_chosen(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = source("deit_s16", 64, positions="dino", patch_px=8)
    exported, _ = write_export(at_size(trained, 48), target, tmp_path / "out")
    assert 48 in exported.checked
    assert (len(exported.checked) == 1) == (target != "safetensors")
    images = torch.randn(2, 3, 48, 48)
    if target != "safetensors":
        assert_same(by_the_readme(tmp_path / "out", images, monkeypatch), trained, images)
        with pytest.raises(Exception):  # noqa: B017, PT011 - each library says it in its own way
            by_the_readme(tmp_path / "out", torch.randn(2, 3, 64, 64), monkeypatch)
    else:
        assert_same(load_network(open_weights(tmp_path / "out")).backbone(images), trained, images)


@pytest.mark.parametrize("target", ["timm", "torchvision", "hf"])
def test_a_residual_network_of_the_usual_width(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = source("resnet18", 64, width=1.0)
    exported, _ = write_export(network, target, tmp_path / "out")
    assert list(exported.checked) == [64, 96]
    images = torch.randn(2, 3, 96, 96)
    assert_same(by_the_readme(tmp_path / "out", images, monkeypatch), network, images)


REASONS = [
    ("resnet18", {"stem": "cifar", "width": 1.0}, "timm", "stem is that of small images"),
    ("resnet18", {"stem": "cifar", "width": 1.0}, "hf", r"stem is that of small images \(3 x 3\)"),
    (
        "timm",
        {"name": "deit_tiny_distilled_patch16_224"},
        "torchvision",
        r"tensors that a plain ViT lacks \(dist_token",
    ),
    ("timm", {"name": "test_convnext"}, "hf", "only ViTs and residual networks"),
]


@pytest.mark.parametrize(("name", "settings", "target", "reason"), REASONS)
def test_what_a_library_has_no_place_for_is_refused_with_the_reason(
    name: str, settings: dict[str, Any], target: str, reason: str, tmp_path: Path
) -> None:
    network = source(name, 32, **settings)
    with pytest.raises(NotExpressible, match=f"cannot be exported to {target}: .*{reason}.*What takes it: --to "):
        write_export(network, target, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", TARGETS)
def test_epsilon_of_norms_goes_along_or_is_refused(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = source("deit_s16", 32)
    set_norm_eps(network.backbone, [1e-2] * len(norm_eps(network.backbone)))
    if target == "timm":
        with pytest.raises(NotExpressible, match=r"norms have epsilon 0.01, timm's vit_small_patch16_224 has 1e-06"):
            write_export(network, target, tmp_path / "out")
        return
    write_export(network, target, tmp_path / "out")
    images = torch.randn(2, 3, 32, 32)
    if target != "safetensors":
        assert_same(by_the_readme(tmp_path / "out", images, monkeypatch), network, images)
    assert_same(load_network(open_weights(tmp_path / "out")).backbone(images), network, images)


def test_a_network_that_computes_something_else_there_is_not_kept(tmp_path: Path) -> None:
    network = source("deit_s16", 32)
    network.backbone.network.blocks[0].mlp.act = torch.nn.ReLU()  # type: ignore[attr-defined]
    for target in ("timm", "torchvision", "hf", "safetensors"):
        with pytest.raises(NotExpressible, match=r"features of images of 32 px differ by .* of the largest"):
            write_export(network, target, tmp_path / target)
    assert not list(tmp_path.iterdir())
