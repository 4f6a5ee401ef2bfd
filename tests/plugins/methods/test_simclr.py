"""SimCLR: NT-Xent against algorithm 1 written with loops, by hand, and against lightly; head, views and contract.

lightly's NTXentLoss agrees in loss and gradient: it, too, is the mean over 2N projections of a cross-entropy over
2N - 1 candidates. The authors' code adds the two directions instead, twice as much (said in the module). lightly's head
has the authors' layers, and a trained shift in its last norm, which theirs and ours leave out.
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
from ssl_bench.blocks.schedules import scaled_lr
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, Progress, Situation
from ssl_bench_plugins.backbones.deit import DeitS16
from ssl_bench_plugins.backbones.resnet import ResNet18
from ssl_bench_plugins.methods.simclr import PRESETS, SimCLR, SimCLRSettings, nt_xent, projector, similarities

LATER = Progress(step=7, total_steps=20, epoch=3, total_epochs=10)
DIM = 8


def make_convnet(*, drop_path=0.0):
    return ResNet18(ResNet18.Config(width=0.0625), image_px=8)


def make_vit(*, drop_path=0.0):
    return DeitS16(DeitS16.Config(patch_px=4, dim=16, depth=2, heads=2), image_px=8, drop_path=drop_path)


def method(backbone=make_convnet, **settings):
    torch.manual_seed(0)
    return SimCLR(SimCLRSettings(**{"hidden_dim": 24, "out_dim": DIM, **settings}), backbone).double()


def a_batch(seed=1, batch=6):
    generator = torch.Generator().manual_seed(seed)
    views = tuple(torch.randn(batch, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    return Batch(views, torch.arange(batch))


def algorithm_1(first, second, temperature):
    """Loops over the 2N projections; k runs over all but i."""
    rows = [row for pair in zip(first.tolist(), second.tolist(), strict=True) for row in pair]  # 2k - 1, 2k as there

    def similarity(a, b):
        product = sum(x * y for x, y in zip(a, b, strict=True))
        return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    def term(i, j):
        candidates = [math.exp(similarity(rows[i], rows[k]) / temperature) for k in range(len(rows)) if k != i]
        assert len(candidates) == len(rows) - 1
        return -math.log(math.exp(similarity(rows[i], rows[j]) / temperature) / sum(candidates))

    terms = [term(2 * k, 2 * k + 1) + term(2 * k + 1, 2 * k) for k in range(len(first))]
    return sum(terms) / len(rows)


# --- the loss


@pytest.mark.parametrize(("batch", "temperature"), [(2, 0.1), (5, 0.1), (5, 0.5)])
def test_loss_is_algorithm_1(batch, temperature):
    torch.manual_seed(0)
    first, second = torch.randn(2, batch, DIM, dtype=torch.float64)
    found = nt_xent(torch.cat([first, second]), temperature).item()
    assert found == pytest.approx(algorithm_1(first, second, temperature), abs=1e-6)


def test_loss_by_hand():
    """Two images, each seen the same twice, at right angles: log(1 + 2 exp(-1 / tau)); all alike: log 3."""
    apart = torch.tensor([[2.0, 0], [0, 3], [5, 0], [0, 1]], dtype=torch.float64)
    assert nt_xent(apart, 0.5).item() == pytest.approx(math.log(1 + 2 * math.exp(-2)), abs=1e-12)
    alike = torch.ones(4, 2, dtype=torch.float64)
    assert nt_xent(alike, 0.5).item() == pytest.approx(math.log(3), abs=1e-12)


@pytest.mark.parametrize("batch", [2, 7])
def test_candidates_are_the_others(batch):
    """Of 2N, each projection has 2N - 1 candidates; with all of them equal, the loss is log(2N - 1)."""
    torch.manual_seed(0)
    candidates = similarities(torch.randn(2 * batch, DIM), 0.1)
    assert torch.equal(candidates == -torch.inf, torch.eye(2 * batch, dtype=torch.bool))
    equal = torch.ones(2 * batch, DIM, dtype=torch.float64)
    assert nt_xent(equal, 0.1).item() == pytest.approx(math.log(2 * batch - 1), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_loss_and_gradient_are_lightlys(temperature):
    from lightly.loss import NTXentLoss

    torch.manual_seed(0)
    both = torch.randn(10, DIM, dtype=torch.float64, requires_grad=True)
    ours, theirs = nt_xent(both, temperature), NTXentLoss(temperature)(both[:5], both[5:])
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    gradients = [torch.autograd.grad(loss, both)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)
    assert torch.isfinite(gradients[0]).all()


def test_the_step_sends_both_views_through_as_one_batch():
    simclr, plain = method(temperature=0.3), method()
    first, second = a_batch().views
    with torch.no_grad():
        z1, z2 = plain.projector(plain.backbone(torch.cat([first, second]))).chunk(2)
    out = simclr.step(a_batch(), LATER)
    assert out.loss.item() == pytest.approx(algorithm_1(z1, z2, 0.3), abs=1e-6)
    cosines = nn.functional.cosine_similarity(torch.cat([z1, z2])[:, None], torch.cat([z1, z2])[None], dim=-1)
    right = [cosines[i].index_fill(0, torch.tensor([i]), -2).argmax().item() == (i + 6) % 12 for i in range(12)]
    assert out.logs["positives_found"].item() == pytest.approx(sum(right) / 12)


# --- the head


@pytest.mark.parametrize("hidden_dim", [None, 24])
def test_the_head_is_the_authors(hidden_dim):
    layers = projector(16, SimCLRSettings(hidden_dim=hidden_dim))
    assert [type(layer) for layer in layers] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]
    assert [tuple(layers[i].weight.shape) for i in (0, 3)] == [(hidden_dim or 16, 16), (128, hidden_dim or 16)]
    assert layers[0].bias is layers[3].bias is None
    assert layers[1].bias.requires_grad
    assert layers[4].bias is None


def test_without_batch_norm_the_head_is_the_papers_text():
    layers = projector(16, SimCLRSettings(head_batch_norm=False)).double()
    features = torch.randn(3, 16, dtype=torch.float64)
    hidden = (features @ layers[0].weight.T + layers[0].bias).clamp(min=0)
    torch.testing.assert_close(layers(features), hidden @ layers[2].weight.T + layers[2].bias)


def test_the_head_is_lightlys():
    from lightly.models.modules import SimCLRProjectionHead

    ours = projector(16, SimCLRSettings(hidden_dim=24, out_dim=DIM)).double()
    theirs = SimCLRProjectionHead(16, 24, DIM).double()
    theirs.layers.load_state_dict(ours.state_dict(), strict=False)  # their last shift stays 0
    features = torch.randn(5, 16, dtype=torch.float64)
    torch.testing.assert_close(ours(features), theirs(features), atol=1e-12, rtol=0)


# --- the contract


@pytest.mark.parametrize("backbone", [make_convnet, make_vit])
@pytest.mark.parametrize("head_batch_norm", [True, False])
def test_a_step_moves_nothing_but_running_statistics_and_reaches_every_trained_parameter(backbone, head_batch_norm):
    simclr = method(backbone, head_batch_norm=head_batch_norm)
    before = {name: value.clone() for name, value in simclr.state_dict().items()}
    out = simclr.step(a_batch(), LATER)
    moved = {name for name, value in simclr.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[2] for name in moved} <= {"running_mean", "running_var", "num_batches_tracked"}
    out.loss.backward()
    trained = {name: p for name, p in simclr.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.any()] == []
    in_groups = [p for group in simclr.parameter_groups() for p in group.parameters]
    assert {id(p) for p in in_groups} == {id(p) for p in trained.values()}
    assert simclr.networks() == {"backbone": simclr.backbone}


def test_micro_batches_are_another_loss():
    simclr = method(make_vit, head_batch_norm=False)  # nothing but the candidates depends on the batch
    whole = simclr.step(a_batch(), LATER).loss.item()
    halves = [
        simclr.step(Batch(tuple(v[rows] for v in a_batch().views), torch.arange(3)), LATER).loss.item()
        for rows in (slice(0, 3), slice(3, 6))
    ]
    assert whole > sum(halves) / 2 + 0.1


def test_bf16_autocast_gives_a_full_precision_loss():
    simclr = method().float()
    given = Batch(tuple(view.float() for view in a_batch().views), torch.arange(6))
    full = simclr.step(given, LATER).loss
    with torch.autocast("cpu", torch.bfloat16):
        half = simclr.step(given, LATER).loss
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(full.item(), rel=0.05)


# --- ten steps


def by_the_contract(simclr, steps):
    settings = OptimizerSettings(name="lars", base_lr=1.2, lr_scaling="sqrt", warmup_epochs=1, final_lr=0.0)
    settings = settings.model_copy(update={"weight_decay": 0.01, "final_weight_decay": None, "trust_coefficient": 0.02})
    optimizer = build_optimizer(settings, simclr.parameter_groups())
    losses = []
    for step in range(steps):
        progress = Progress(step, steps, step // 5, steps // 5)
        set_schedule(optimizer, settings, progress, batch_size=16)
        optimizer.zero_grad()
        out = simclr.step(a_batch(step), progress)
        out.loss.backward()
        simclr.before_optimizer(progress)
        optimizer.step()
        simclr.update(out.carry, progress)
        losses.append(out.loss.item())
    return losses


def straight_down(plain, steps):
    """The same with the loss as the authors' four blocks, LARS, warm-up and cosine written out."""
    weights = [p for p in plain.parameters() if p.requires_grad]
    velocity = [torch.zeros_like(value) for value in weights]
    losses = []
    for step in range(steps):
        z = plain.projector(plain.backbone(torch.cat(a_batch(step).views)))
        a, b = (z / (z**2).sum(dim=1, keepdim=True).sqrt()).chunk(2)
        off = torch.eye(6, dtype=torch.float64) * 1e9
        directions = []
        for one, other in ((a, b), (b, a)):
            scores = torch.cat([one @ other.T / 0.1, one @ one.T / 0.1 - off], dim=1)
            directions.append((scores.logsumexp(dim=1) - (one * other).sum(dim=1) / 0.1).mean())
        loss = sum(directions) / 2
        gradients = torch.autograd.grad(loss, weights)
        peak = 0.075 * math.sqrt(16)
        lr = peak * step / 4 if step < 5 else peak * (1 + math.cos(math.pi * (step - 5) / (steps - 5))) / 2
        with torch.no_grad():
            for i, (value, gradient) in enumerate(zip(weights, gradients, strict=True)):
                delta = gradient
                if value.ndim > 1:
                    delta = gradient + 0.01 * value
                    delta = delta * (0.02 * value.norm() / delta.norm())
                velocity[i] = 0.9 * velocity[i] + delta
                value -= lr * velocity[i]
        losses.append(loss.item())
    return losses


def test_ten_steps_follow_the_straight_line():
    simclr = method()
    plain, start = copy.deepcopy(simclr), {n: p.detach().clone() for n, p in simclr.named_parameters()}
    expected = straight_down(plain, 10)
    assert by_the_contract(simclr, 10) == pytest.approx(expected, abs=1e-4)
    for (name, value), other in zip(simclr.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(value, other, atol=1e-4, rtol=0, msg=name)
    moved = [(p - start[n]).norm() / start[n].norm() for n, p in simclr.named_parameters() if p.ndim > 1]
    assert min(moved) > 1e-3


# --- settings and views


def test_a_batch_of_one_is_answered():
    with pytest.raises(UserError, match=r"batch_size = 1.*at least 2 images.*--batch-size 2"):
        SimCLR.fill(SimCLRSettings(), Situation(32, 1000, None, 1))
    with pytest.raises(UserError, match=r"method\.crop_px.*30 px.*28 or 32"):
        SimCLR.fill(SimCLRSettings(crop_px=30), Situation(32, 1000, 4, 64))


@pytest.mark.parametrize(("image_px", "sigma"), [(224, 2.0), (96, 2.0), (48, 1.0)])
def test_crop_and_blur_follow_the_image(image_px, sigma):
    situation = Situation(image_px, 1000, None, 64)
    filled = SimCLR.fill(SimCLRSettings(), situation)
    assert (filled.crop_px, filled.blur_sigma_px) == (image_px, (0.1, sigma))
    assert SimCLR.fill(filled, situation) == filled


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_views_are_appendix_a(strength):
    settings = SimCLRSettings(color_strength=strength)
    made = SimCLR.make_views(SimCLR.fill(settings, Situation(224, 1000, None, 64)))
    ((crop, count),) = made.views
    assert (count, crop.crop_px, crop.scale, crop.ratio) == (2, 224, (0.08, 1.0), (3 / 4, 4 / 3))
    assert (crop.brightness, crop.contrast, crop.saturation, crop.hue) == (*(0.8 * strength,) * 3, 0.2 * strength)
    assert (crop.flip_probability, crop.jitter_probability, crop.gray_probability) == (0.5, 0.8, 0.2)
    assert (crop.blur_probability, crop.blur_sigma_px, crop.solarize_probability) == (0.5, (0.1, 2.0), 0.0)


def test_views_are_a_function_of_the_samples_random_numbers():
    make = SimCLR.make_views(SimCLR.fill(SimCLRSettings(), Situation(32, 1000, 4, 64)))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    once, again = make(image, random.Random(5)), make(image, random.Random(5))
    assert [tuple(view.shape) for view in once] == [(3, 32, 32)] * 2
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not torch.equal(once[0], once[1])


def test_the_papers_rates():
    linear, root = ({**PRESETS[n].values, **PRESETS[n].convnet_values} for n in ("paper", "paper-100-sqrt"))
    assert scaled_lr(linear["optimizer.base_lr"], 4096, linear["optimizer.lr_scaling"]) == pytest.approx(4.8)
    assert scaled_lr(root["optimizer.base_lr"], 1024, root["optimizer.lr_scaling"]) == pytest.approx(0.075 * 32)
    assert linear["optimizer.weight_decay"] == 1e-6
    assert OptimizerSettings().warmup_epochs == 10
