"""Twenty optimizer steps of the plugin against the same twenty written straight down, as in the authors' loop.

The plugin was compared once with the authors' own code (main_dino.py, utils.py and vision_transformer.py at commit
7c446df: train_one_epoch, DINOLoss, DINOHead, MultiCropWrapper, schedules, clipping and the frozen last layer): 20 steps
in float64 with 2 views of 224 px and 4 of 96 px, 3 blocks of width 48, differ by less than 2e-14 in every loss, weight
and in the center; with timm's positions the losses differ by 0.03.
"""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer, set_schedule
from ssl_bench.method import Batch, Progress
from ssl_bench_plugins.backbones.deit import DeitS16
from ssl_bench_plugins.methods.dino import DINO, DINOSettings
from tests.plugins.backbones.test_vit_positions import written_out

STEPS, EPOCHS, BATCH, VIEWS, K = 20, 4, 3, 4, 32
STEPS_PER_EPOCH = STEPS // EPOCHS
TEMPERATURES = [0.04, 0.055, 0.07, 0.07]  # of the teacher, by epoch: a ramp of 3 epochs


def views_of(step, large=16, small=8):
    generator = torch.Generator().manual_seed(step)
    sizes = [large] * 2 + [small] * (VIEWS - 2)
    return tuple(torch.randn(BATCH, 3, px, px, generator=generator, dtype=torch.float64) for px in sizes)


def build(image_px=16, patch_px=4, positions="timm", drop_path=0.2):
    def make_backbone(*, drop_path=0.0):
        config = DeitS16.Config(patch_px=patch_px, dim=16, depth=3, heads=2, positions=positions)
        return DeitS16(config, image_px=image_px, drop_path=drop_path)

    torch.manual_seed(0)
    config = DINOSettings(
        out_dim=K,
        hidden_dim=24,
        bottleneck_dim=8,
        local_views=VIEWS - 2,
        drop_path=drop_path,
        clip_norm=0.05,  # so that many tensors are clipped, and not all
        teacher_temperature_epochs=3,
        teacher_momentum=0.9,
    )
    return DINO(config, make_backbone).double()


def by_the_contract(method, sizes=()):
    """Losses of the steps, made the way the training loop calls a method."""
    settings = OptimizerSettings(base_lr=0.02, warmup_epochs=1, final_lr=1e-4)
    optimizer = build_optimizer(settings, method.parameter_groups())
    losses = []
    for step in range(STEPS):
        torch.manual_seed(step)  # for drop path
        progress = Progress(step, STEPS, step // STEPS_PER_EPOCH, EPOCHS)
        set_schedule(optimizer, settings, progress, batch_size=64)
        optimizer.zero_grad()
        out = method.step(Batch(views_of(step, *sizes), torch.arange(BATCH)), progress)
        out.loss.backward()
        method.before_optimizer(progress)
        optimizer.step()
        method.update(out.carry, progress)
        losses.append(out.loss.item())
    return losses


def head(tensors, features):
    """The authors' DINOHead, from its named weights."""
    for layer in ("0", "2"):
        features = functional.gelu(features @ tensors[f"head.mlp.{layer}.weight"].T + tensors[f"head.mlp.{layer}.bias"])
    features = features @ tensors["head.mlp.4.weight"].T + tensors["head.mlp.4.bias"]
    features = features / features.norm(dim=-1, keepdim=True)
    rows = tensors["head.last_layer.rows"]
    return features @ (rows / rows.norm(dim=1, keepdim=True)).T


def cosine_array(base, final, warmup_epochs=0):
    warmup = np.linspace(0, base, warmup_epochs * STEPS_PER_EPOCH)
    steps = np.arange(STEPS - len(warmup))
    return np.concatenate([warmup, final + 0.5 * (base - final) * (1 + np.cos(np.pi * steps / len(steps)))])


def straight_down(student_backbone, teacher_backbone, student, teacher, sizes=()):
    """The same losses from two networks and two dicts of weights, which are moved in place."""
    center = torch.zeros(K, dtype=torch.float64)
    lrs = cosine_array(0.02 * 64 / 256, 1e-4, warmup_epochs=1)
    decays, momenta = cosine_array(0.04, 0.4), cosine_array(0.9, 1.0)
    first = {name: torch.zeros_like(value) for name, value in student.items()}
    second = {name: torch.zeros_like(value) for name, value in student.items()}
    moved = dict.fromkeys(student, 0)
    losses = []
    for step in range(STEPS):
        torch.manual_seed(step)
        epoch = step // STEPS_PER_EPOCH
        views = views_of(step, *sizes)
        with torch.no_grad():
            teacher_out = head(teacher, teacher_backbone(torch.cat(views[:2])))
            targets = ((teacher_out - center) / TEMPERATURES[epoch]).softmax(dim=-1).chunk(2)
        features = torch.cat([student_backbone(torch.cat(views[:2])), student_backbone(torch.cat(views[2:]))])
        said = (head(student, features) / 0.1).log_softmax(dim=-1).chunk(VIEWS)
        loss, terms = 0.0, 0
        for i, target in enumerate(targets):
            for j, log_probabilities in enumerate(said):
                if i != j:
                    loss = loss - (target * log_probabilities).sum(dim=-1).mean()
                    terms += 1
        loss = loss / terms
        center = 0.9 * center + 0.1 * teacher_out.mean(dim=0)
        gradients = dict(zip(student, torch.autograd.grad(loss, list(student.values())), strict=True))
        with torch.no_grad():
            for name, value in student.items():
                gradient = gradients[name]
                norm = math.sqrt((gradient**2).sum().item())
                gradient = gradient * min(1.0, 0.05 / (norm + 1e-6))
                if epoch < 1 and "last_layer" in name:
                    continue
                moved[name] += 1
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                if value.ndim > 1:
                    value -= lrs[step] * decays[step] * value
                mean = first[name] / (1 - 0.9 ** moved[name])
                square = second[name] / (1 - 0.999 ** moved[name])
                value -= lrs[step] * mean / (square.sqrt() + 1e-8)
            for name, value in teacher.items():
                value.copy_(momenta[step] * value + (1 - momenta[step]) * student[name])
        losses.append(loss.item())
    return losses, center


def authors_vit(tensors):
    """The authors' VisionTransformer.forward at any size, from named weights: patches of 16 px, 2 heads."""

    def weight(name):
        return tensors[f"backbone.network.{name}"]

    def norm(tokens, name):
        centered = tokens - tokens.mean(dim=-1, keepdim=True)
        variance = centered.square().mean(dim=-1, keepdim=True)
        return centered / (variance + 1e-6).sqrt() * weight(f"{name}.weight") + weight(f"{name}.bias")

    def linear(tokens, name):
        return tokens @ weight(f"{name}.weight").T + weight(f"{name}.bias")

    def forward(images):
        kernel = weight("patch_embed.proj.weight")
        patches = functional.conv2d(images, kernel, weight("patch_embed.proj.bias"), stride=16).flatten(2)
        table = weight("pos_embed")
        positions = written_out(table[:, 1:], (14, 14), (images.shape[2] // 16, images.shape[3] // 16))
        tokens = torch.cat([weight("cls_token").expand(len(images), -1, -1), patches.transpose(1, 2)], dim=1)
        tokens = tokens + torch.cat([table[:, :1], positions], dim=1)
        for block in range(3):
            name = f"blocks.{block}"
            qkv = linear(norm(tokens, f"{name}.norm1"), f"{name}.attn.qkv")
            query, key, value = (part.unflatten(2, (2, 8)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
            mixed = (query @ key.transpose(-2, -1) * 8**-0.5).softmax(dim=-1) @ value
            tokens = tokens + linear(mixed.transpose(1, 2).flatten(2), f"{name}.attn.proj")
            hidden = functional.gelu(linear(norm(tokens, f"{name}.norm2"), f"{name}.mlp.fc1"))
            tokens = tokens + linear(hidden, f"{name}.mlp.fc2")
        return norm(tokens, "norm")[:, 0]

    return forward


def check_same(method, losses, expected, center, tensors):
    assert losses == pytest.approx(expected, abs=1e-8)
    torch.testing.assert_close(method.center, center, atol=1e-8, rtol=0)
    for network, weights in zip((method.student, method.teacher), tensors, strict=True):
        for name, value in network.named_parameters():
            torch.testing.assert_close(value, weights[name], atol=1e-8, rtol=0, msg=name)


def test_twenty_steps_with_local_views_of_96_px_follow_the_straight_line():
    """Nothing of timm in the oracle: positions are resampled as the authors do it, for every view of 96 px."""
    sizes = (224, 96)
    method = build(224, 16, "dino", drop_path=0.0)
    for network in (method.student, method.teacher):
        torch.nn.init.normal_(network.backbone.network.pos_embed, generator=torch.Generator().manual_seed(1))
    tensors = [
        {name: value.detach().clone().requires_grad_(value.requires_grad) for name, value in network.named_parameters()}
        for network in (method.student, method.teacher)
    ]
    expected, center = straight_down(*map(authors_vit, tensors), *tensors, sizes=sizes)
    check_same(method, by_the_contract(method, sizes), expected, center, tensors)


def test_twenty_steps_follow_the_straight_line():
    method = build()
    plain = copy.deepcopy(method)
    networks = plain.student, plain.teacher
    tensors = [dict(network.named_parameters()) for network in networks]
    before = {name: value.detach().clone() for name, value in tensors[0].items()}
    expected, center = straight_down(*(network.backbone.network for network in networks), *tensors)
    losses = by_the_contract(method)
    check_same(method, losses, expected, center, tensors)
    traveled = [(value - before[name]).abs().max().item() for name, value in method.teacher.named_parameters()]
    assert min(traveled) > 1e-3  # every tensor of the teacher moved much farther than the tolerance
