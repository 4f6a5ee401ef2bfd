"""BYOL: its loss, target and schedule against the paper's equations, the authors' code and lightly.

lightly's NegativeCosineSimilarity is -cos, so ours is 2 + 2 times it (its BYOL benchmark multiplies by 2, for the same
gradient). lightly's heads have no bias before the batch norm, which takes it off again; the authors' and ours have it.
lightly's last layers have a bias; the authors' and ours do not.
"""

import copy
import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer, set_schedule
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, Progress, Situation
from ssl_bench_plugins.backbones.deit import DeitS16
from ssl_bench_plugins.backbones.resnet import ResNet18
from ssl_bench_plugins.methods.byol import BYOL, PRESETS, BYOLSettings, head, regression_loss

LATER = Progress(step=7, total_steps=20, epoch=3, total_epochs=10)
DIM = 8


def make_convnet(*, drop_path=0.0):
    return ResNet18(ResNet18.Config(width=0.0625), image_px=8)


def make_vit(*, drop_path=0.0):
    return DeitS16(DeitS16.Config(patch_px=4, dim=16, depth=2, heads=2), image_px=8, drop_path=drop_path)


def method(backbone=make_convnet, **settings):
    torch.manual_seed(0)
    return BYOL(BYOLSettings(**{"hidden_dim": 24, "out_dim": DIM, **settings}), backbone).double()


def a_batch(seed=1, batch=6):
    generator = torch.Generator().manual_seed(seed)
    views = tuple(torch.randn(batch, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    return Batch(views, torch.arange(batch))


def parameters(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def buffers(module):
    return {name: value.clone() for name, value in module.named_buffers()}


def squared_distance(predictions, targets):
    """Equation 2 with loops."""
    total = 0.0
    for q, z in zip(predictions.tolist(), targets.tolist(), strict=True):
        q_norm, z_norm = math.sqrt(sum(x * x for x in q)), math.sqrt(sum(x * x for x in z))
        total += sum((a / q_norm - b / z_norm) ** 2 for a, b in zip(q, z, strict=True))
    return total / len(predictions)


# --- the loss


def test_loss_is_equation_2():
    torch.manual_seed(0)
    predictions, targets = torch.randn(2, 5, DIM, dtype=torch.float64)
    assert regression_loss(predictions, targets).item() == pytest.approx(squared_distance(predictions, targets), 1e-6)


def test_loss_by_hand():
    """Angles of 0, 60, 90 and 180 degrees: 0, 1, 2 and 4, mean 1.75; lengths do not matter."""
    predictions = torch.tensor([[3.0, 0], [2, 0], [1, 0], [5, 0]], dtype=torch.float64)
    targets = torch.tensor([[1.0, 0], [1, math.sqrt(3)], [0, 2], [-1, 0]], dtype=torch.float64)
    assert regression_loss(predictions, targets).item() == pytest.approx(1.75, abs=1e-12)


def test_loss_and_gradient_are_twice_lightlys_and_2():
    from lightly.loss import NegativeCosineSimilarity

    torch.manual_seed(0)
    predictions, targets = torch.randn(2, 5, DIM, dtype=torch.float64)
    predictions.requires_grad_(True)
    ours, theirs = regression_loss(predictions, targets), 2 + 2 * NegativeCosineSimilarity()(predictions, targets)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    gradients = [torch.autograd.grad(loss, predictions)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_the_step_sums_both_directions_and_each_view_has_its_own_batch_statistics():
    byol, plain = method(), method()
    with torch.no_grad():
        first, second = a_batch().views
        q1, q2 = plain.predictor(plain.online(first)), plain.predictor(plain.online(second))
        z1, z2 = plain.target(first), plain.target(second)
    expected = squared_distance(q1, z2) + squared_distance(q2, z1)
    assert byol.step(a_batch(), LATER).loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_spread_shows_a_collapse():
    byol = method()
    assert 0.2 < byol.batch_logs(byol.step(a_batch(), LATER).carry)["target_spread"].item() < 1.2
    with torch.no_grad():
        byol.target.projector[3].weight[1:].zero_()
        byol.target.projector[1].bias.fill_(5.0)  # every hidden unit on, so that signs agree
        byol.target.projector[3].weight[0].abs_()
    assert byol.batch_logs(byol.step(a_batch(), LATER).carry)["target_spread"].item() == pytest.approx(0.0, abs=1e-6)


# --- the heads


def test_heads_are_the_papers():
    byol = BYOL(BYOLSettings(), make_convnet)
    for mlp, in_dim in ((byol.online.projector, 32), (byol.predictor, 256), (byol.target.projector, 32)):
        assert [type(layer) for layer in mlp] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
        assert tuple(mlp[0].weight.shape) == (4096, in_dim)
        assert tuple(mlp[3].weight.shape) == (256, 4096)
        assert mlp[3].bias is None
    assert head(2048, 4096, 256)[3].weight.std().item() == pytest.approx(4096**-0.5 * 0.88, rel=0.05)


def test_the_head_is_lightlys():
    from lightly.models.modules import BYOLProjectionHead

    ours, theirs = head(5, 24, DIM).double(), BYOLProjectionHead(5, 24, DIM).double()
    with torch.no_grad():
        theirs.layers[0].weight.copy_(ours[0].weight)
        theirs.layers[3].weight.copy_(ours[3].weight)
        theirs.layers[3].bias.zero_()
    features = torch.randn(7, 5, dtype=torch.float64)
    torch.testing.assert_close(ours(features), theirs(features), atol=1e-10, rtol=0)


# --- the contract


@pytest.mark.parametrize("backbone", [make_convnet, make_vit])
def test_a_step_moves_nothing_but_running_statistics_and_reaches_every_trained_parameter(backbone):
    byol = method(backbone)
    before, kept = parameters(byol), buffers(byol)
    out = byol.step(a_batch(), LATER)
    assert all(torch.equal(value, before[name]) for name, value in byol.named_parameters())
    moved = {name for name, value in byol.named_buffers() if not torch.equal(value, kept[name])}
    assert {name.rpartition(".")[2] for name in moved} == {"running_mean", "running_var", "num_batches_tracked"}
    out.loss.backward()
    assert all(p.grad is None for p in byol.target.parameters())
    trained = {name: p for name, p in byol.named_parameters() if p.requires_grad}
    assert all(name.startswith(("online.", "predictor.")) for name in trained)
    # a bias before a batch norm is taken off again: its gradient is 0 but for rounding
    assert all(p.grad is not None for p in trained.values())
    assert [n for n, p in trained.items() if not p.grad.any()] == []
    in_groups = [p for group in byol.parameter_groups() for p in group.parameters]
    assert {id(p) for p in in_groups} == {id(p) for p in trained.values()}
    assert list(byol.networks().items()) == [("online", byol.online.backbone), ("target", byol.target.backbone)]


def test_lars_leaves_biases_and_norms_out():
    byol = method()
    decayed, undecayed = byol.parameter_groups()
    assert decayed.weight_decay
    assert not undecayed.weight_decay
    assert all(p.ndim > 1 for p in decayed.parameters)
    names = {id(p): name for name, p in byol.named_parameters()}
    left = [names[id(p)] for p in undecayed.parameters]
    assert all(name.endswith("bias") or "bn" in name or "downsample.1" in name or ".1.w" in name for name in left)


def test_the_target_starts_as_the_online_network_and_follows_without_its_buffers():
    byol = method()
    assert all(torch.equal(a, b) for a, b in zip(byol.online.parameters(), byol.target.parameters(), strict=True))
    byol.step(a_batch(), LATER)
    with torch.no_grad():
        for parameter in byol.online.parameters():
            parameter.add_(torch.randn_like(parameter))
        byol.online.backbone.network.bn1.running_mean.fill_(9.0)
    target, online, kept = parameters(byol.target), parameters(byol.online), buffers(byol.target)
    byol.update({}, LATER)
    tau = 1 - (1 - 0.996) * (math.cos(math.pi * 7 / 20) + 1) / 2
    for name, value in byol.target.named_parameters():
        torch.testing.assert_close(value, tau * target[name] + (1 - tau) * online[name], atol=1e-12, rtol=0)
    assert all(torch.equal(value, kept[name]) for name, value in byol.target.named_buffers())
    assert all(torch.equal(value, online[name]) for name, value in byol.online.named_parameters())


def test_the_target_uses_and_keeps_batch_statistics_of_its_own():
    byol = method()
    with torch.no_grad():
        for parameter in byol.online.parameters():
            parameter.mul_(1.5)
    byol.step(a_batch(), LATER)
    ours, theirs = byol.online.backbone.network.bn1, byol.target.backbone.network.bn1
    assert theirs.training
    assert theirs.num_batches_tracked == ours.num_batches_tracked == 2  # one batch a view
    assert not torch.equal(ours.running_mean, theirs.running_mean)
    first = byol.step(a_batch(), LATER).loss.item()
    with torch.no_grad():
        for buffer in (theirs.running_mean, theirs.running_var):
            buffer.fill_(3.0)
    assert byol.step(a_batch(), LATER).loss.item() == first  # in training mode, they are kept and not used


@pytest.mark.parametrize("base", [0.99, 0.996])
def test_momentum_runs_from_its_base_to_1(base):
    byol = method(target_momentum=base)
    for step in (0, 5, 10, 19):
        with torch.no_grad():
            for parameter in byol.target.parameters():
                parameter.zero_()
            for parameter in byol.online.parameters():
                parameter.fill_(1.0)
        byol.update({}, Progress(step, 20, 0, 1))
        tau = 1 - (1 - base) * (math.cos(math.pi * step / 20) + 1) / 2
        assert next(byol.target.parameters()).flatten()[0].item() == pytest.approx(1 - tau, abs=1e-12)


def test_the_state_is_all_that_a_copy_needs():
    byol, other = method(), method()
    for parameter in byol.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    other.load_state_dict(copy.deepcopy(byol.state_dict()))
    assert torch.equal(byol.step(a_batch(), LATER).loss, other.step(a_batch(), LATER).loss)


def test_bf16_autocast_gives_a_full_precision_loss():
    byol = method().float()
    given = Batch(tuple(view.float() for view in a_batch().views), torch.arange(6))
    full = byol.step(given, LATER).loss
    with torch.autocast("cpu", torch.bfloat16):
        half = byol.step(given, LATER).loss
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(full.item(), rel=0.05)


# --- ten steps


def by_the_contract(byol, steps):
    settings = OptimizerSettings(name="lars", base_lr=0.8, warmup_epochs=1, final_lr=0.0, weight_decay=0.01)
    settings = settings.model_copy(update={"final_weight_decay": None, "trust_coefficient": 0.02})
    optimizer = build_optimizer(settings, byol.parameter_groups())
    losses = []
    for step in range(steps):
        progress = Progress(step, steps, step // 5, steps // 5)
        set_schedule(optimizer, settings, progress, batch_size=128)
        optimizer.zero_grad()
        out = byol.step(a_batch(step), progress)
        out.loss.backward()
        byol.before_optimizer(progress)
        optimizer.step()
        byol.update(out.carry, progress)
        losses.append(out.loss.item())
    return losses


def normed(rows):
    return rows / (rows**2).sum(dim=1, keepdim=True).sqrt()


def straight_down(plain, steps):
    """The same with LARS, warm-up, cosine and moving average written out."""
    weights, target = dict(plain.named_parameters()), dict(plain.target.named_parameters())
    weights = {name: value for name, value in weights.items() if not name.startswith("target.")}
    velocity = {name: torch.zeros_like(value) for name, value in weights.items()}
    losses = []
    for step in range(steps):
        first, second = a_batch(step).views
        with torch.no_grad():
            z1, z2 = normed(plain.target(first)), normed(plain.target(second))
        q1, q2 = normed(plain.predictor(plain.online(first))), normed(plain.predictor(plain.online(second)))
        loss = ((q1 - z2) ** 2).sum(dim=1).mean() + ((q2 - z1) ** 2).sum(dim=1).mean()
        gradients = torch.autograd.grad(loss, list(weights.values()))
        peak = 0.8 * 128 / 256
        lr = peak * step / 4 if step < 5 else peak * (1 + math.cos(math.pi * (step - 5) / (steps - 5))) / 2
        tau = 1 - (1 - 0.9) * (math.cos(math.pi * step / steps) + 1) / 2
        with torch.no_grad():
            for (name, value), gradient in zip(weights.items(), gradients, strict=True):
                delta = gradient
                if value.ndim > 1:
                    delta = gradient + 0.01 * value
                    delta = delta * (0.02 * value.norm() / delta.norm())
                velocity[name] = 0.9 * velocity[name] + delta
                value -= lr * velocity[name]
            for name, value in target.items():
                value.copy_(tau * value + (1 - tau) * weights["online." + name])
        losses.append(loss.item())
    return losses


def test_ten_steps_follow_the_straight_line():
    byol = method(target_momentum=0.9)
    plain, start = copy.deepcopy(byol), parameters(byol.target)
    expected = straight_down(plain, 10)
    assert by_the_contract(byol, 10) == pytest.approx(expected, abs=1e-4)
    for (name, value), other in zip(byol.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(value, other, atol=1e-4, rtol=0, msg=name)
    moved = {n: (p - start[n]).abs().max().item() for n, p in byol.target.named_parameters() if p.ndim > 1}
    assert min(moved.values()) > 1e-3  # much farther than the tolerance


# --- settings and views


@pytest.mark.parametrize(("image_px", "sigma"), [(224, 2.0), (96, 2.0), (48, 1.0)])
def test_crop_and_blur_follow_the_image(image_px, sigma):
    situation = Situation(image_px, 1000, None, 64)
    filled = BYOL.fill(BYOLSettings(), situation)
    assert (filled.crop_px, filled.blur_sigma_px) == (image_px, (0.1, sigma))
    assert BYOL.fill(filled, situation) == filled


def test_what_cannot_work_is_answered():
    with pytest.raises(UserError, match=r"batch_size = 1.*--batch-size 2"):
        BYOL.fill(BYOLSettings(), Situation(32, 1000, None, 1))
    with pytest.raises(UserError, match=r"method\.crop_px.*30 px.*28 or 32"):
        BYOL.fill(BYOLSettings(crop_px=30), Situation(32, 1000, 4, 64))


def test_views_are_table_6():
    made = BYOL.make_views(BYOL.fill(BYOLSettings(), Situation(224, 1000, None, 64)))
    (first, _), (second, _) = made.views
    assert [count for _, count in made.views] == [1, 1]
    assert (first.blur_probability, second.blur_probability) == (1.0, 0.1)
    assert (first.solarize_probability, second.solarize_probability) == (0.0, 0.2)
    for crop in (first, second):
        assert (crop.crop_px, crop.scale, crop.ratio) == (224, (0.08, 1.0), (3 / 4, 4 / 3))
        assert (crop.brightness, crop.contrast, crop.saturation, crop.hue) == (0.4, 0.4, 0.2, 0.1)
        assert (crop.flip_probability, crop.jitter_probability, crop.gray_probability) == (0.5, 0.8, 0.2)
        assert (crop.interpolation, crop.blur_sigma_px, crop.solarize_threshold) == ("bicubic", (0.1, 2.0), 128.0)


def test_views_are_a_function_of_the_samples_random_numbers():
    make = BYOL.make_views(BYOL.fill(BYOLSettings(), Situation(32, 1000, 4, 64)))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    once, again = make(image, random.Random(5)), make(image, random.Random(5))
    assert [tuple(view.shape) for view in once] == [(3, 32, 32)] * 2
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize(
    ("name", "epochs", "lr", "decay", "momentum"),
    [("paper", 1000, 0.2, 1.5e-6, 0.996), ("paper-300", 300, 0.3, 1e-6, 0.99), ("paper-100", 100, 0.45, 1e-6, 0.99)],
)
def test_the_papers_values_by_epochs(name, epochs, lr, decay, momentum):
    values = {**PRESETS[name].values, **PRESETS[name].convnet_values}
    assert (values["training.epochs"], values["training.batch_size"]) == (epochs, 4096)
    assert (values["optimizer.name"], values["optimizer.base_lr"]) == ("lars", lr)
    assert (values["optimizer.weight_decay"], values["method.target_momentum"]) == (decay, momentum)
    assert OptimizerSettings().warmup_epochs == 10
