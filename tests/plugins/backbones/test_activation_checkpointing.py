"""Activation checkpointing: bitwise the same training, fewer kept activations, and networks that refuse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, Progress
from ssl_bench.training.micro_batches import Passes, add_gradients
from ssl_bench_plugins.backbones.deit import DeitTi16, ViTSettings
from ssl_bench_plugins.backbones.resnet import ResNet18
from ssl_bench_plugins.backbones.timm_any import TimmAny, TimmSettings
from ssl_bench_plugins.methods.simclr import SimCLR, SimCLRSettings
from tests.toy import ToyBackbone


def vit(depth: int = 4) -> Backbone:
    return DeitTi16(ViTSettings(patch_px=4, dim=32, depth=depth, heads=2), image_px=16, drop_path=0.5)


def resnet() -> Backbone:
    return ResNet18(ResNet18.Config(width=0.125), image_px=16, drop_path=0.2)


def timms(name: str = "test_convnext") -> Backbone:
    return TimmAny(TimmSettings(name=name), image_px=32, drop_path=0.2)


TIMMS_OWN = ["test_resnet", "test_efficientnet", "test_byobnet", "test_nfnet", "test_mambaout"]
"""Small networks of timm of several families that recompute by themselves, most of them with batch norm."""


def steps(build: Callable[[], Backbone], enabled: bool, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """State and losses after three steps of SGD on features, in training mode with drop path."""
    torch.manual_seed(0)
    backbone = build().train()
    backbone.set_activation_checkpointing(enabled)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.01)
    losses = []
    for step in range(3):
        torch.manual_seed(step)
        images = torch.randn(6, 3, backbone.image_px, backbone.image_px)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            loss = backbone(images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return {**backbone.state_dict(), "losses": torch.stack(losses), "random": torch.get_rng_state()}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("build", [vit, resnet, timms, partial(timms, "test_resnet")])
def test_training_is_bitwise_the_same(build: Callable[[], Backbone], dtype: torch.dtype | None) -> None:
    plain, recomputed = (steps(build, enabled, dtype) for enabled in (False, True))
    assert [name for name, one in plain.items() if not torch.equal(one, recomputed[name])] == []


@pytest.mark.parametrize("name", TIMMS_OWN)
def test_timms_networks_move_their_statistics_once_a_step_and_keep_less(name: str) -> None:
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        backbone = timms(name).train()
        for _ in range(2):  # asked for twice, it is still done once
            backbone.set_activation_checkpointing(enabled)
        torch.manual_seed(1)
        images = torch.randn(2, 3, 32, 32)
        kept = kept_bytes(backbone, images)
        torch.manual_seed(2)
        backbone(images).square().mean().backward()
        gradients = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
        found.append((kept, gradients | dict(backbone.named_buffers())))
    (plain_kept, plain), (kept, recomputed) = found
    assert kept < 0.9 * plain_kept
    assert plain.keys() == recomputed.keys()
    assert [name for name, one in plain.items() if not torch.equal(one, recomputed[name])] == []


@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize("build", [resnet, partial(timms, "test_resnet")])
def test_micro_batches_with_recomputation_are_those_without(
    build: Callable[[], Backbone], dtype: torch.dtype | None
) -> None:
    """Cached gradients, where each image is embedded twice and recomputed once: gradients and buffers are the same."""
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        method = SimCLR(SimCLRSettings(hidden_dim=8, out_dim=4), lambda drop_path=0.0: build()).train()
        method.backbone.set_activation_checkpointing(enabled)
        px = method.backbone.image_px
        torch.manual_seed(1)
        batch = Batch((torch.randn(6, 3, px, px), torch.randn(6, 3, px, px)), torch.arange(6))
        passes = Passes(torch.device("cpu"), "s", micro_batch=2, autocast_dtype=dtype)
        add_gradients(method, batch, Progress(0, 10, 0, 1), passes)
        gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        found.append(gradients | dict(method.named_buffers()))
    assert [name for name, one in found[0].items() if not torch.equal(one, found[1][name])] == []


def kept_bytes(backbone: Backbone, images: Tensor) -> int:
    """Of all tensors that autograd keeps for the backward pass, parameters left out."""
    own = {parameter.data_ptr() for parameter in backbone.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features = backbone(images)
    assert features.requires_grad
    return sum(kept.values())


def test_a_block_of_a_vit_keeps_its_input_alone() -> None:
    """Four blocks more keep four times (batch, tokens, dim) float32 more, and nothing else."""
    images = torch.randn(2, 3, 16, 16)
    kept = []
    for depth in (4, 8):
        backbone = vit(depth).train()
        backbone.set_activation_checkpointing(True)
        kept.append(kept_bytes(backbone, images))
    assert kept[1] - kept[0] == 4 * (2 * 17 * 32 * 4)
    assert kept[1] < kept_bytes(vit(8).train(), images) / 4


def test_a_residual_network_keeps_less() -> None:
    images, backbone = torch.randn(4, 3, 16, 16), resnet().train()
    before = kept_bytes(backbone, images)
    backbone.set_activation_checkpointing(True)
    assert kept_bytes(backbone, images) < before / 2
    backbone.set_activation_checkpointing(False)
    assert kept_bytes(backbone, images) == before


@pytest.mark.parametrize("build", [vit, resnet])
def test_it_works_on_fake_tensors(build: Callable[[], Backbone]) -> None:
    backbone = build().train()
    backbone.set_activation_checkpointing(True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        loss = backbone(torch.empty(2, 3, 16, 16)).square().mean()
        loss.backward()
    assert loss.shape == ()


def test_tokens_and_maps_are_recomputed_too() -> None:
    backbone: Any = vit().eval()
    images, keep = torch.randn(2, 3, 16, 16), torch.tensor([[3, 5], [15, 0]])
    found = []
    for enabled in (False, True):
        backbone.set_activation_checkpointing(enabled)
        loss = backbone.tokens(images, keep=keep).patches.square().mean() + backbone.feature_maps(images)[1].mean()
        found.append(torch.autograd.grad(loss, list(backbone.parameters()), allow_unused=True))
    for one, other in zip(*found, strict=True):
        assert one is other is None or torch.equal(one, other)


def test_networks_that_cannot_refuse() -> None:
    with pytest.raises(UserError, match=r"dla34 cannot recompute .*machine\.activation_checkpointing at false"):
        TimmAny(TimmSettings(name="dla34"), image_px=32).set_activation_checkpointing(True)
    with pytest.raises(UserError, match="ToyBackbone cannot recompute"):
        ToyBackbone().set_activation_checkpointing(True)
    ToyBackbone().set_activation_checkpointing(False)
