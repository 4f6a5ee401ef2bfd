"""SwAV: loss, codes, queue and prototypes against slow oracles, the authors' loop written straight down, and lightly.

lightly's SwaVLoss and sinkhorn are the same, with and without a queue. Its SwaVPrototypes normalize in place before the
forward pass, as the authors do and as the straight line below does; its benchmark runs the projector view by view,
where the authors' batch norm sees all views at once, and starts its queue by counting batches within an epoch.
"""

import copy
import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer, set_schedule
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, Progress, Situation
from ssl_bench_plugins.backbones.deit import DeitS16
from ssl_bench_plugins.backbones.resnet import ResNet18
from ssl_bench_plugins.methods.swav import PRESETS, SwAV, SwAVSettings, swapped_prediction

BATCH, K, DIM, VIEWS, QUEUE = 6, 10, 5, 4, 12
SOON = Progress(step=8, total_steps=20, epoch=4, total_epochs=10)


def make_vit(*, drop_path=0.0):
    return DeitS16(DeitS16.Config(patch_px=4, dim=16, depth=2, heads=2), image_px=16, drop_path=drop_path)


def make_convnet(*, drop_path=0.0):
    return ResNet18(ResNet18.Config(width=0.0625), image_px=16)


def method(backbone=make_convnet, **settings):
    torch.manual_seed(0)
    small = {"out_dim": DIM, "hidden_dim": 12, "prototypes": K, "local_views": VIEWS - 2}
    return SwAV(SwAVSettings(**{**small, **settings}), backbone).double()


def a_batch(step=0):
    generator = torch.Generator().manual_seed(step)
    sizes = [16, 16] + [8] * (VIEWS - 2)
    views = tuple(torch.randn(BATCH, 3, px, px, generator=generator, dtype=torch.float64) for px in sizes)
    return Batch(views, torch.arange(BATCH))


def scores(seed=0, views=VIEWS, batch=BATCH):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(views, batch, K, generator=generator, dtype=torch.float64) * 2 - 1


def units(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def moved(network):
    """Parameters and buffers, without the running statistics that every forward pass of batch norm moves."""
    state = network.state_dict().items()
    return {name: value.clone() for name, value in state if "running_" not in name and "num_batches" not in name}


def filled(batch=64, images=12_000, patch_px=None, image_px=32, **settings):
    return SwAV.fill(SwAVSettings(**settings), Situation(image_px, images, patch_px, batch))


def codes_in_loops(rows, epsilon=0.05, iterations=3):
    """Equation 3 by algorithm 1 of the appendix: lists of a row's scores -> lists of its code."""
    table = [[math.exp(score / epsilon) for score in row] for row in rows]
    for _ in range(iterations):
        for k in range(len(table[0])):
            total = sum(row[k] for row in table)
            for row in table:
                row[k] /= total * len(table[0])
        for row in table:
            total = sum(row)
            row[:] = [value / (total * len(table)) for value in row]
    return [[value * len(table) for value in row] for row in table]


# --- the loss and the codes


@pytest.mark.parametrize("views", [2, 4])
def test_the_loss_is_equations_1_and_2_over_all_pairs(views):
    given = scores(views=views)
    codes = torch.softmax(scores(seed=1, views=2) / 0.05, dim=-1)
    total = 0.0
    for s in range(2):
        subloss = 0.0
        for t in range(views):
            if t == s:
                continue
            for sample in range(BATCH):
                exponents = [math.exp(score / 0.1) for score in given[t, sample].tolist()]
                logs = [math.log(exponent / sum(exponents)) for exponent in exponents]
                subloss -= sum(q * p for q, p in zip(codes[s, sample].tolist(), logs, strict=True)) / BATCH
        total += subloss / (views - 1)
    assert swapped_prediction(codes, given, 0.1).item() == pytest.approx(total / 2, abs=1e-6)


def test_the_loss_by_hand():
    """Two prototypes, two views, one sample: view 1 has code (1, 0), view 2 (0, 1); the other's odds are e^2 and 1."""
    codes = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    given = torch.tensor([[[0.2, 0.0]], [[0.0, 0.0]]])
    view_1_tells_code_2, view_2_tells_code_1 = math.log(math.exp(2) + 1), math.log(2)
    expected = (view_1_tells_code_2 + view_2_tells_code_1) / 2
    assert swapped_prediction(codes, given, 0.1).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("queued", [0, QUEUE])
def test_codes_and_loss_are_the_loops_and_lightlys(queued):
    from lightly.loss import SwaVLoss
    from lightly.loss.swav_loss import sinkhorn as lightlys

    swav = method(queue_size=queued, queue_from_epoch=0)
    embeddings = units(5, 2, queued, DIM)
    if queued:
        swav.queue.copy_(embeddings)
        swav.queued.fill_(queued)
    given = scores().requires_grad_()
    found = swav.codes(given[:2].detach(), SOON)
    earlier = embeddings @ swav.prototypes.detach().T
    for view in range(2):
        everything = torch.cat([earlier[view], given[view].detach()])
        expected = codes_in_loops(everything.tolist())[queued:]
        torch.testing.assert_close(found[view], torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)
        torch.testing.assert_close(found[view], lightlys(everything)[queued:], atol=1e-9, rtol=0)
    loss = swapped_prediction(found, given, 0.1)
    (gradient,) = torch.autograd.grad(loss, given)
    rows = list(earlier) if queued else None
    theirs = SwaVLoss()(list(given[:2]), list(given[2:]), rows)
    (their_gradient,) = torch.autograd.grad(theirs, given)
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-9)
    torch.testing.assert_close(gradient, their_gradient, atol=1e-9, rtol=0)


def test_codes_use_prototypes_equally_and_sum_to_1():
    found = method(sinkhorn_iterations=200).codes(scores(views=2), SOON)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(2, BATCH, dtype=torch.float64))
    torch.testing.assert_close(found.sum(dim=1), torch.full((2, K), BATCH / K, dtype=torch.float64), atol=1e-3, rtol=0)


def test_codes_are_made_in_float32_at_least():
    """In bfloat16 exp(1 / 0.05) and its sums would be off by percents."""
    given = scores(views=2).bfloat16()
    found = method().bfloat16().codes(given, SOON)
    assert found.dtype == torch.float32
    expected = codes_in_loops(given[0].double().tolist())
    torch.testing.assert_close(found[0].double(), torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=0)


def test_codes_come_from_the_global_views_and_are_told_by_all_others():
    swav, given = method(make_vit), a_batch()  # one view's code does not depend on what others are
    projected = swav.projector
    projected.eval()  # so that batch norm does not mix the views either
    embeddings = swav.embed(given)["embeddings"].transpose(0, 1)
    told = embeddings @ swav.prototypes.T
    codes = swav.codes(told[:2].detach(), SOON)
    out = swav.step(given, SOON)
    assert out.loss.item() == pytest.approx(swapped_prediction(codes, told, 0.1).item(), abs=1e-9)
    told_logs = torch.log_softmax(told / 0.1, dim=-1)
    others = [(s, t) for s in range(2) for t in range(len(told)) if s != t]
    divergences = [functional.kl_div(told_logs[t], codes[s], reduction="batchmean") for s, t in others]
    assert out.logs["kl"].item() == pytest.approx(torch.stack(divergences).mean().item(), abs=1e-7)
    changed = Batch((*given.views[:2], *a_batch(9).views[2:]), given.index)
    assert swav.step(changed, SOON).logs["code_entropy"].item() == out.logs["code_entropy"].item()
    torch.testing.assert_close(out.carry["embeddings"], embeddings[:2].detach().transpose(0, 1))
    codes.requires_grad_()
    assert len(torch.autograd.grad(swapped_prediction(codes, told.detach(), 0.1), codes)) == 1
    assert not swav.codes(told[:2], SOON).requires_grad


# --- the contract


@pytest.mark.parametrize("backbone", [make_vit, make_convnet])
def test_a_step_moves_nothing_and_reaches_every_parameter(backbone):
    swav = method(backbone, queue_size=QUEUE, queue_from_epoch=0)
    before = moved(swav)
    out = swav.step(a_batch(), SOON)
    assert all(torch.equal(value, before[name]) for name, value in moved(swav).items())
    out.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in swav.parameters())
    assert out.carry["embeddings"].shape == (BATCH, 2, DIM)
    assert all(not value.requires_grad for value in (*out.carry.values(), *out.logs.values()))
    assert 1 <= out.logs["prototypes_used"].item() <= K
    assert swav.networks() == {"backbone": swav.backbone}
    in_groups = [p for group in swav.parameter_groups() for p in group.parameters]
    assert {id(p) for p in in_groups} == {id(p) for p in swav.parameters()}
    decayed = [group.weight_decay for group in swav.parameter_groups()]
    assert decayed == ([True, False] if backbone is make_vit else [True])


def test_prototypes_have_length_1_before_every_forward_pass():
    swav = method()
    one = torch.ones(K, dtype=torch.float64)
    torch.testing.assert_close(swav.prototypes.norm(dim=1), one, atol=1e-6, rtol=0)
    directions = torch.randn(K, DIM, dtype=torch.float64) * 3
    swav.prototypes.data.copy_(directions)
    swav.update({"embeddings": torch.zeros(BATCH, 2, DIM, dtype=torch.float64)}, SOON)
    torch.testing.assert_close(swav.prototypes.data, directions / directions.norm(dim=1, keepdim=True))
    assert swav.prototypes.requires_grad


@pytest.mark.parametrize(("epochs", "rest"), [(0, 0), (0.5, 1), (1, 2), (2, 4)])
def test_prototypes_rest_at_first(epochs, rest):
    swav = method(freeze_prototypes_epochs=epochs)
    for step in range(6):
        swav.zero_grad()
        swav.step(a_batch(), SOON).loss.backward()
        swav.before_optimizer(Progress(step, 20, step // 2, 10))
        assert (swav.prototypes.grad is None) == (step < rest)
        assert all(p.grad is not None for p in swav.projector.parameters())


def test_the_queue_fills_from_its_epoch_and_is_used_once_full():
    """Two steps an epoch, from epoch 1: full after two batches, newest first, used from step 4 on."""
    swav = method(queue_size=QUEUE, queue_from_epoch=1)
    without = method()
    entered = []
    for step in range(7):
        progress = Progress(step, 20, step // 2, 10)
        given = scores(seed=step, views=2)
        used = not torch.equal(swav.codes(given, progress), without.codes(given, progress))
        assert used == (step >= 4)
        newest = units(step, 2, BATCH, DIM)
        swav.update({"embeddings": newest.transpose(0, 1)}, progress)
        entered = [newest, *entered] if step >= 2 else []
        assert swav.queued.item() == min(len(entered) * BATCH, QUEUE)
        expected = torch.cat([*entered, torch.zeros(2, QUEUE, DIM, dtype=torch.float64)], dim=1)[:, :QUEUE]
        assert torch.equal(swav.queue, expected)


def test_codes_are_made_before_the_batch_enters_the_queue():
    swav = method(queue_size=QUEUE, queue_from_epoch=0)
    swav.queue.copy_(units(5, 2, QUEUE, DIM))
    swav.queued.fill_(QUEUE)
    first = swav.step(a_batch(), SOON)
    assert swav.step(a_batch(), SOON).loss.item() == pytest.approx(first.loss.item(), abs=1e-12)
    swav.update(first.carry, SOON)
    assert abs(swav.step(a_batch(), SOON).loss.item() - first.loss.item()) > 1e-6


def test_without_a_queue_there_is_no_state_beside_the_networks():
    assert not {"queue", "queued"} & set(method().state_dict())
    assert {"queue", "queued"} <= set(method(queue_size=QUEUE).state_dict())


def test_a_queue_need_not_be_a_multiple_of_the_batch():
    swav = method(queue_size=8, queue_from_epoch=0)
    for step in range(3):
        swav.update({"embeddings": units(step, BATCH, 2, DIM)}, SOON)
    recent = torch.cat([units(2, BATCH, 2, DIM), units(1, BATCH, 2, DIM)]).transpose(0, 1)
    assert torch.equal(swav.queue, recent[:, :8])
    assert swav.queued.item() == 8


def test_bf16_autocast_gives_a_full_precision_loss():
    swav = method(make_vit, queue_size=QUEUE, queue_from_epoch=0).float()
    swav.queue.copy_(units(5, 2, QUEUE, DIM))
    swav.queued.fill_(QUEUE)
    given = Batch(tuple(view.float() for view in a_batch().views), torch.arange(BATCH))
    full = swav.step(given, SOON)
    with torch.autocast("cpu", torch.bfloat16):
        half = swav.step(given, SOON)
    assert half.loss.dtype == half.carry["embeddings"].dtype == torch.float32
    assert half.loss.item() == pytest.approx(full.loss.item(), rel=0.05)


def test_the_projector_is_lightlys_and_sees_all_views_at_once():
    from lightly.models.modules import SwaVProjectionHead

    swav = method(make_vit)
    theirs = SwaVProjectionHead(16, 12, DIM).double()
    kinds = nn.Linear, nn.BatchNorm1d
    mine, others = ([m for m in head.modules() if type(m) in kinds] for head in (swav.projector, theirs.layers))
    for layer, other in zip(mine, others, strict=True):  # lightly leaves out the bias that batch norm takes off again
        other.load_state_dict({n: v for n, v in layer.state_dict().items() if n in other.state_dict()})
    given = a_batch().views
    index = torch.arange(BATCH)
    with torch.no_grad():
        features = torch.cat([swav.backbone(torch.cat(given[:2])), swav.backbone(torch.cat(given[2:]))])
        expected = functional.normalize(theirs(features), dim=1).view(VIEWS, BATCH, DIM)
        found = swav.embed(Batch(given, index))["embeddings"]
        torch.testing.assert_close(found, expected.transpose(0, 1), atol=1e-9, rtol=0)


# --- ten steps

STEPS, EPOCHS = 10, 5
CONFIG = {"queue_size": QUEUE, "queue_from_epoch": 1, "freeze_prototypes_epochs": 1}


def by_the_contract(swav):
    presets = PRESETS["paper-small-batch"].convnet_values
    settings = OptimizerSettings(**{k.partition(".")[2]: v for k, v in presets.items()})
    optimizer = build_optimizer(settings, swav.parameter_groups())
    losses = []
    for step in range(STEPS):
        progress = Progress(step, STEPS, step // (STEPS // EPOCHS), EPOCHS)
        set_schedule(optimizer, settings, progress, batch_size=2048)
        optimizer.zero_grad()
        out = swav.step(a_batch(step), progress)
        out.loss.backward()
        swav.before_optimizer(progress)
        optimizer.step()
        swav.update(out.carry, progress)
        losses.append(out.loss.item())
    return losses


def in_the_authors_order(backbone, projector, prototypes):
    """main_swav.py: prototypes normalized in place before the forward pass, queue written between codes and loss."""
    named = [*backbone.parameters(), *projector.parameters(), prototypes]
    velocities = [torch.zeros_like(p) for p in named]
    losses, queue, used, without = [], None, 0, []
    for step in range(STEPS):
        epoch = step // (STEPS // EPOCHS)
        rate = 6e-4 + 0.5 * (0.6 - 6e-4) * (1 + math.cos(math.pi * step / STEPS))
        if epoch >= 1 and queue is None:
            queue = torch.zeros(2, QUEUE, DIM, dtype=torch.float64)
        with torch.no_grad():
            prototypes.copy_(prototypes / prototypes.norm(dim=1, keepdim=True))
        views = a_batch(step).views
        projected = projector(torch.cat([backbone(torch.cat(views[:2])), backbone(torch.cat(views[2:]))]))
        embedding = projected / projected.norm(dim=1, keepdim=True)
        output = embedding @ prototypes.T
        loss = 0.0
        for i in range(2):
            out = output[BATCH * i : BATCH * (i + 1)].detach()
            if queue is not None:
                if not torch.all(queue[i, -1, :] == 0):
                    out = torch.cat((queue[i] @ prototypes.detach().T, out))
                    used += 1
                queue[i, BATCH:] = queue[i, :-BATCH].clone()
                queue[i, :BATCH] = embedding[BATCH * i : BATCH * (i + 1)].detach()
            q = torch.tensor(codes_in_loops(out.tolist())[-BATCH:], dtype=torch.float64)
            subloss = 0.0
            for v in range(VIEWS):
                if v != i:
                    p = (output[BATCH * v : BATCH * (v + 1)] / 0.1).log_softmax(dim=1)
                    subloss = subloss - (q * p).sum(dim=1).mean()
            loss = loss + subloss / (VIEWS - 1) / 2
        gradients = torch.autograd.grad(loss, named)
        with torch.no_grad():
            for weight, gradient, velocity in zip(named, gradients, velocities, strict=True):
                if weight is prototypes and step < 2:
                    continue
                gradient = gradient + 1e-6 * weight
                norms = weight.norm().item(), gradient.norm().item()
                trust = 0.001 * norms[0] / norms[1] if all(norms) else 1.0
                velocity.mul_(0.9).add_(trust * gradient)
                weight -= rate * velocity
        losses.append(loss.item())
        without.append(queue is None)
    assert without == [True] * 2 + [False] * 8
    assert used == 2 * 6  # views x steps 4 to 9
    return losses, queue


def test_ten_steps_follow_the_authors_order():
    swav = method(**CONFIG)
    start = copy.deepcopy(swav)
    with torch.no_grad():
        start.prototypes.mul_(torch.rand(K, 1, dtype=torch.float64) + 0.5)  # theirs start at any length
    expected, queue = in_the_authors_order(start.backbone, start.projector, start.prototypes)
    losses = by_the_contract(swav)
    assert losses == pytest.approx(expected, abs=1e-4)
    torch.testing.assert_close(swav.queue, queue, atol=1e-4, rtol=0)
    for ours, theirs in zip(swav.backbone.parameters(), start.backbone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    theirs = functional.normalize(start.prototypes.data, dim=1)  # as they would before step 11
    torch.testing.assert_close(swav.prototypes.data, theirs, atol=1e-4, rtol=0)
    fresh = method(**CONFIG)
    for now, before in ((swav.prototypes, fresh.prototypes), (swav.projector[0].weight, fresh.projector[0].weight)):
        assert (now - before).abs().max().item() > 1e-3


# --- settings and views


def test_prototypes_follow_the_number_of_images():
    assert filled(images=1_281_167).prototypes == 3000
    assert filled(images=12_000).prototypes == 200
    assert filled(images=10).prototypes == 2
    assert filled(images=500, prototypes=500).prototypes == 500
    once = filled()
    assert SwAV.fill(once, Situation(32, 12_000, None, 64)) == once


def test_what_makes_no_sense_is_answered():
    with pytest.raises(UserError, match=r"prototypes = 3000 is more than the 500 .*--set method\.prototypes=8"):
        filled(images=500, prototypes=3000)
    with pytest.raises(UserError, match=r"queue_size = 3840 is smaller than training\.batch_size = 4096"):
        filled(batch=4096, queue_size=3840)
    with pytest.raises(UserError, match=r"batch_size = 1"):
        filled(batch=1)
    with pytest.raises(UserError, match=r"method\.local_crop_px.*14 px.*patches of 4 px"):
        filled(patch_px=4, local_crop_px=14)


@pytest.mark.parametrize(("image_px", "patch_px", "local_px"), [(224, None, 96), (224, 16, 96), (32, None, 16)])
def test_sizes_of_crops_follow_image_and_patch(image_px, patch_px, local_px):
    settings = filled(image_px=image_px, patch_px=patch_px)
    assert (settings.global_crop_px, settings.local_crop_px) == (image_px, local_px)


def test_views_are_the_authors():
    made = SwAV.make_views(filled(image_px=224)).views
    assert [(crop.crop_px, crop.scale, count) for crop, count in made] == [
        (224, (0.14, 1.0), 2),
        (96, (0.05, 0.14), 6),
    ]
    for crop, _ in made:
        assert (crop.brightness, crop.contrast, crop.saturation, crop.hue) == (0.8, 0.8, 0.8, 0.2)
        assert (crop.jitter_probability, crop.gray_probability, crop.flip_probability) == (0.8, 0.2, 0.5)
        assert (crop.blur_probability, crop.blur_sigma_px, crop.solarize_probability) == (0.5, (0.1, 2.0), 0.0)
        assert crop.interpolation == "bilinear"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    twice = [SwAV.make_views(filled(local_views=2))(image, random.Random(5)) for _ in range(2)]
    assert [tuple(view.shape) for view in twice[0]] == [(3, 32, 32)] * 2 + [(3, 16, 16)] * 2
    assert all(torch.equal(a, b) for a, b in zip(*twice, strict=True))


@pytest.mark.parametrize(
    ("name", "rate", "batch", "queue", "warmup"),
    [("paper", 4.8, 4096, 0, 10), ("paper-small-batch", 0.6, 256, 3840, 0)],
)
def test_the_authors_scripts_on_a_convnet(name, rate, batch, queue, warmup):
    values = {**PRESETS[name].values, **PRESETS[name].convnet_values}
    settings = OptimizerSettings(**{k.partition(".")[2]: v for k, v in values.items() if k.startswith("optimizer.")})
    assert (settings.name, settings.base_lr, settings.lr_scaling, settings.warmup_epochs) == (
        "lars",
        rate,
        "none",
        warmup,
    )
    assert (settings.weight_decay, settings.final_weight_decay, settings.trust_coefficient) == (1e-6, None, 0.001)
    assert settings.final_lr == pytest.approx(rate / 1000)
    assert (values["training.batch_size"], values.get("method.queue_size", 0)) == (batch, queue)
    assert SwAVSettings().queue_from_epoch == 15
