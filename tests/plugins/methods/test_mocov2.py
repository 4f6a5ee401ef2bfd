"""MoCo v2: loss, queue and order of moves against slow oracles, the authors' loop written straight down, and lightly.

lightly's NTXentLoss with a memory bank is the same loss and the same ring of keys; it enqueues inside the loss, where
ours enqueues in `update`. Its head is ours. Its benchmark swaps the views' roles, which the loss cannot tell, does not
decay biases and norms, and has no split batch norm: the authors' code and CIFAR demo decide there.
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
from ssl_bench_plugins.methods.mocov2 import PRESETS, Encoder, MoCoV2, MoCoV2Settings, info_nce, logits

BATCH, K, DIM = 8, 24, 6
SOON = Progress(step=3, total_steps=20, epoch=1, total_epochs=10)


def make_vit(*, drop_path=0.0):
    return DeitS16(DeitS16.Config(patch_px=4, dim=16, depth=2, heads=2), image_px=16, drop_path=drop_path)


def make_convnet(*, drop_path=0.0):
    return ResNet18(ResNet18.Config(width=0.0625), image_px=16)


def method(backbone=make_vit, **settings):
    torch.manual_seed(0)
    small = {"out_dim": DIM, "queue_size": K, "batch_norm_splits": 1}
    return MoCoV2(MoCoV2Settings(**{**small, **settings}), backbone).double()


def a_batch(step=0):
    generator = torch.Generator().manual_seed(step)
    views = tuple(torch.randn(BATCH, 3, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    return Batch(views, torch.arange(BATCH))


def units(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def moved(network):
    """Parameters and buffers, without the running statistics that every forward pass of batch norm moves."""
    state = network.state_dict().items()
    return {name: value.clone() for name, value in state if "running_" not in name and "num_batches" not in name}


def filled(batch=64, images=12_000, patch_px=None, image_px=32, **settings):
    return MoCoV2.fill(MoCoV2Settings(**settings), Situation(image_px, images, patch_px, batch))


# --- the loss


def test_the_loss_is_equation_1():
    queries, keys, queue = units(0, 5, DIM), units(1, 5, DIM), units(2, 7, DIM)
    terms = []
    for query, key in zip(queries.tolist(), keys.tolist(), strict=True):
        similar = [math.exp(sum(a * b for a, b in zip(query, k, strict=True)) / 0.2) for k in [key, *queue.tolist()]]
        terms.append(-math.log(similar[0] / sum(similar)))
    found = info_nce(logits(queries, keys, queue, 0.2))
    assert found.item() == pytest.approx(sum(terms) / 5, abs=1e-6)


def test_the_loss_by_hand():
    """One query, its key equal to it, two keys at right angles: -log(e^5 / (e^5 + 2)) at temperature 0.2."""
    query, queue = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    expected = math.log(1 + 2 * math.exp(-5))
    assert info_nce(logits(query, query, queue, 0.2)).item() == pytest.approx(expected, abs=1e-6)


def test_loss_gradient_and_queue_are_lightlys():
    from lightly.loss import NTXentLoss

    ours = method()
    theirs = NTXentLoss(temperature=0.2, memory_bank_size=(K, DIM)).double()
    theirs.memory_bank.bank = ours.queue.clone()
    for step in range(5):  # the queue has 3 batches: it goes round
        queries, keys = units(2 * step, BATCH, DIM).requires_grad_(), units(2 * step + 1, BATCH, DIM)
        torch.testing.assert_close(ours.queue, theirs.memory_bank.bank, atol=1e-12, rtol=0)
        loss = info_nce(logits(queries, keys, ours.queue, 0.2))
        their_loss = theirs(queries, keys)
        torch.testing.assert_close(loss, their_loss, atol=1e-9, rtol=0)
        gradients = [torch.autograd.grad(value, queries)[0] for value in (loss, their_loss)]
        across = [g - (g * queries).sum(-1, keepdim=True) * queries for g in gradients]  # theirs normalizes once more
        torch.testing.assert_close(*across, atol=1e-9, rtol=0)
        ours.update({"keys": keys}, SOON)


def test_the_head_is_lightlys_and_starts_as_the_authors():
    from lightly.models.modules import MoCoProjectionHead

    encoder = Encoder(make_vit(), DIM)
    theirs = MoCoProjectionHead(16, 16, DIM)
    theirs.layers.load_state_dict(encoder.head.state_dict())
    features = torch.randn(4, 16)
    torch.testing.assert_close(encoder.head(features), theirs(features))
    assert [type(layer) for layer in encoder.head] == [nn.Linear, nn.ReLU, nn.Linear]
    bound = 1 / math.sqrt(16)  # nn.Linear's uniform start
    assert bound * 0.9 < encoder.head[0].weight.abs().max().item() <= bound


# --- one step


def test_queries_are_view_1_and_keys_are_view_2_only():
    moco, given = method(), a_batch()
    with torch.no_grad():
        queries, keys = moco.query(given.views[0]), moco.key(given.views[1])
    expected = info_nce(logits(queries, keys, moco.queue, 0.2))
    out = moco.step(given, SOON)
    assert out.loss.item() == pytest.approx(expected.item(), abs=1e-9)
    torch.testing.assert_close(out.carry["keys"], keys)
    swapped = moco.step(Batch(given.views[::-1], given.index), SOON)
    assert abs(swapped.loss.item() - out.loss.item()) > 1e-6


@pytest.mark.parametrize("backbone", [make_vit, make_convnet])
def test_a_step_moves_nothing_and_only_the_query_encoder_learns(backbone):
    moco = method(backbone, batch_norm_splits=4)
    before = moved(moco)
    out = moco.step(a_batch(), SOON)
    assert all(torch.equal(value, before[name]) for name, value in moved(moco).items())
    out.loss.backward()
    assert all(p.grad is None for p in moco.key.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in moco.query.parameters())
    assert not out.carry["keys"].requires_grad
    assert all(not value.requires_grad for value in out.logs.values())
    assert out.logs["keys_found"].item() in [found / BATCH for found in range(BATCH + 1)]
    groups = moco.parameter_groups()
    assert [group.weight_decay for group in groups] == [True]
    assert {id(p) for p in groups[0].parameters} == {id(p) for p in moco.query.parameters()}
    assert list(moco.networks().items()) == [("query", moco.query.backbone), ("key", moco.key.backbone)]


def test_keys_enter_after_the_logits_in_place_of_the_oldest():
    moco = method()
    expected = moco.queue.clone()
    for step in range(5):
        out = moco.step(a_batch(step), SOON)
        assert torch.equal(moco.queue, expected)  # the step saw a queue without its own keys
        rows = [(step * BATCH + row) % K for row in range(BATCH)]
        expected[rows] = out.carry["keys"]
        moco.update(out.carry, SOON)
        assert torch.equal(moco.queue, expected)
        assert moco.queue_position.item() == (step + 1) * BATCH % K
    torch.testing.assert_close(moco.queue.norm(dim=1), torch.ones(K, dtype=torch.float64))


def test_the_key_encoder_moves_as_equation_2_and_keeps_its_statistics():
    moco = method(make_convnet, key_momentum=0.9)
    with torch.no_grad():
        for parameter in moco.query.parameters():
            parameter.add_(0.5)
    old = {name: value.clone() for name, value in moco.key.state_dict().items()}
    moco.update({"keys": units(0, BATCH, DIM)}, SOON)
    learned = {name for name, _ in moco.key.named_parameters()}
    for name, value in moco.key.state_dict().items():
        expected = 0.9 * old[name] + 0.1 * moco.query.state_dict()[name] if name in learned else old[name]
        torch.testing.assert_close(value, expected, atol=1e-12, rtol=0)


def test_micro_batches_are_the_batch_without_batch_norm():
    whole = method()
    views = a_batch().views
    halves = [whole.step(Batch(tuple(v[i : i + 4] for v in views), torch.arange(4)), SOON) for i in (0, 4)]
    out = whole.step(a_batch(), SOON)
    assert out.loss.item() == pytest.approx(sum(half.loss.item() for half in halves) / 2, abs=1e-9)
    torch.testing.assert_close(out.carry["keys"], torch.cat([half.carry["keys"] for half in halves]))


def test_bf16_autocast_gives_full_precision_loss_and_keys():
    moco = method().float()
    given = Batch(tuple(view.float() for view in a_batch().views), torch.arange(BATCH))
    full = moco.step(given, SOON)
    with torch.autocast("cpu", torch.bfloat16):
        half = moco.step(given, SOON)
    assert half.loss.dtype == half.carry["keys"].dtype == torch.float32
    assert half.loss.item() == pytest.approx(full.loss.item(), rel=0.03)


# --- batch norm over parts, and the order of moves


class SplitBatchNorm(nn.BatchNorm2d):
    """The demo's layer, from its idea: parts of the batch become channels of their own."""

    def forward(self, maps):
        parts, channels = self.parts, self.num_features
        tall = maps.unflatten(0, (parts, -1)).transpose(0, 1).flatten(1, 2)
        mean, variance = self.running_mean.repeat(parts), self.running_var.repeat(parts)
        tall = functional.batch_norm(
            tall, mean, variance, self.weight.repeat(parts), self.bias.repeat(parts), True, 0.1
        )
        self.running_mean.copy_(mean.view(parts, channels).mean(dim=0))
        self.running_var.copy_(variance.view(parts, channels).mean(dim=0))
        return tall.unflatten(1, (parts, channels)).transpose(0, 1).flatten(0, 1)


def with_split_layers(encoder, parts):
    encoder = copy.deepcopy(encoder)
    for layer in encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__, layer.parts = SplitBatchNorm, parts
    return encoder


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_are_the_demos_split_batch_norm(parts):
    moco = method(make_convnet, batch_norm_splits=parts)
    query, key = (with_split_layers(encoder, parts) for encoder in (moco.query, moco.key))
    given = a_batch()
    torch.manual_seed(3)
    out = moco.step(given, SOON)
    torch.manual_seed(3)
    order = torch.randperm(BATCH) if parts > 1 else torch.arange(BATCH)
    with torch.no_grad():
        shuffled, queries = key(given.views[1][order]), query(given.views[0])
    keys = torch.empty_like(shuffled)
    keys[order] = shuffled
    torch.testing.assert_close(out.carry["keys"], keys, atol=1e-9, rtol=0)
    assert out.loss.item() == pytest.approx(info_nce(logits(queries, keys, moco.queue, 0.2)).item(), abs=1e-9)
    # Running averages: theirs take the parts' mean, ours one part after the other with a momentum that adds up.
    ours, theirs = moco.query.backbone.network.bn1, query.backbone.network.bn1
    torch.testing.assert_close(ours.running_var, theirs.running_var, atol=0.02, rtol=0)
    assert (1 - ours.momentum) ** parts == pytest.approx(0.9)


def test_keys_of_a_network_without_batch_norm_need_no_shuffling():
    moco = method(batch_norm_splits=4)
    assert moco.parts == 1
    state = torch.get_rng_state()
    moco.step(a_batch(), SOON)
    assert torch.equal(torch.get_rng_state(), state)


STEPS, EPOCHS, MOMENTUM = 10, 5, 0.9


def by_the_contract(moco):
    settings = OptimizerSettings(**{k.partition(".")[2]: v for k, v in PRESETS["paper"].convnet_values.items()})
    optimizer = build_optimizer(settings, moco.parameter_groups())
    losses = []
    for step in range(STEPS):
        torch.manual_seed(step)
        progress = Progress(step, STEPS, step // (STEPS // EPOCHS), EPOCHS)
        set_schedule(optimizer, settings, progress, batch_size=2048)
        optimizer.zero_grad()
        out = moco.step(a_batch(step), progress)
        out.loss.backward()
        moco.before_optimizer(progress)
        optimizer.step()
        moco.update(out.carry, progress)
        losses.append(out.loss.item())
    return losses


def in_the_authors_order(query, key, queue, splits):
    """main_moco.py and builder.py: the key encoder moves inside the step, also in the first; torch only."""
    losses, position = [], 0
    velocities = [torch.zeros_like(p) for p in query.parameters()]
    for step in range(STEPS):
        torch.manual_seed(step)
        first, second = a_batch(step).views
        queries = query(first)
        with torch.no_grad():
            for slow, fast in zip(key.parameters(), query.parameters(), strict=True):
                slow.copy_(slow * MOMENTUM + fast * (1 - MOMENTUM))
            order = torch.randperm(BATCH) if splits > 1 else torch.arange(BATCH)
            keys = key(second[order])[torch.argsort(order)]
        positive = torch.einsum("nc,nc->n", queries, keys)[:, None]
        negative = torch.einsum("nc,kc->nk", queries, queue.clone())
        loss = functional.cross_entropy(torch.cat([positive, negative], 1) / 0.2, torch.zeros(BATCH, dtype=torch.long))
        queue[position : position + BATCH] = keys
        position = (position + BATCH) % K
        rate = 0.03 * 2048 / 256 * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        gradients = torch.autograd.grad(loss, list(query.parameters()))
        with torch.no_grad():
            for weight, gradient, velocity in zip(query.parameters(), gradients, velocities, strict=True):
                velocity.mul_(0.9).add_(gradient + 1e-4 * weight)
                weight -= rate * velocity
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("splits", [1, 4])
def test_ten_steps_follow_the_authors_order(splits):
    moco = method(make_convnet, batch_norm_splits=splits, key_momentum=MOMENTUM)
    start = copy.deepcopy(moco)
    query, key = (with_split_layers(encoder, splits) for encoder in (start.query, start.key))
    expected = in_the_authors_order(query, key, start.queue, splits)
    losses = by_the_contract(moco)
    assert losses == pytest.approx(expected, abs=1e-4)
    torch.testing.assert_close(moco.queue, start.queue, atol=1e-4, rtol=0)
    for ours, theirs in zip(moco.query.parameters(), query.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    for ours, slow, fast in zip(moco.key.parameters(), key.parameters(), query.parameters(), strict=True):
        torch.testing.assert_close(ours, slow * MOMENTUM + fast * (1 - MOMENTUM), atol=1e-4, rtol=0)  # one move ahead
    fresh = method(make_convnet, batch_norm_splits=splits)
    traveled = [(a - b).abs().max().item() for a, b in zip(key.parameters(), fresh.key.parameters(), strict=True)]
    assert min(traveled) > 1e-3


# --- settings and views


@pytest.mark.parametrize(
    ("batch", "images", "given", "queue"),
    [(256, 1_281_167, None, 65536), (64, 12_000, None, 3968), (64, 100, None, 64), (64, 500, 640, 640)],
)
def test_the_queue_is_a_multiple_of_the_batch(batch, images, given, queue):
    assert filled(batch, images, queue_size=given).queue_size == queue


def test_a_queue_that_no_whole_number_of_batches_fills_is_answered():
    with pytest.raises(UserError, match=r"queue_size = 65536.*batch_size = 100.*65500 or 65600"):
        filled(100, queue_size=65536)
    with pytest.raises(UserError, match=r"queue_size = 30.*multiples: 64; e\.g\. --set method\.queue_size=64"):
        filled(64, queue_size=30)


@pytest.mark.parametrize(("batch", "parts"), [(256, 8), (512, 8), (64, 4), (50, 2), (48, 3), (4, 1), (1, 1)])
def test_parts_of_a_batch(batch, parts):
    assert filled(batch).batch_norm_splits == parts
    assert filled(batch, batch_norm_splits=1).batch_norm_splits == 1


def test_parts_that_do_not_fit_are_answered_where_batch_norm_is_expected():
    with pytest.raises(UserError, match=r"batch_norm_splits = 8.*batch_size = 12.*Possible: 1, 2, 3, 4, 6,"):
        filled(12, batch_norm_splits=8)
    assert filled(12, patch_px=4, batch_norm_splits=8).batch_norm_splits == 8
    with pytest.raises(UserError, match=r"method\.crop_px.*30 px.*patches of 4 px"):
        filled(patch_px=4, crop_px=30)


def test_filling_twice_changes_nothing():
    once = filled(64, 12_000)
    assert MoCoV2.fill(once, Situation(32, 12_000, None, 64)) == once


def test_views_are_the_authors():
    (crop, count), *rest = MoCoV2.make_views(filled(256, 10**6, image_px=224)).views
    assert (count, rest) == (2, [])
    assert (crop.crop_px, crop.scale, crop.interpolation) == (224, (0.2, 1.0), "bilinear")
    assert (crop.brightness, crop.contrast, crop.saturation, crop.hue) == (0.4, 0.4, 0.4, 0.1)
    assert (crop.jitter_probability, crop.gray_probability, crop.flip_probability) == (0.8, 0.2, 0.5)
    assert (crop.blur_probability, crop.blur_sigma_px, crop.solarize_probability) == (0.5, (0.1, 2.0), 0.0)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    made = [MoCoV2.make_views(filled())(image, random.Random(5)) for _ in range(2)]
    assert [tuple(view.shape) for view in made[0]] == [(3, 32, 32)] * 2
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))
    assert not torch.equal(*made[0])


def test_the_paper_on_a_convnet():
    values = {**PRESETS["paper"].values, **PRESETS["paper"].convnet_values}
    defaults = MoCoV2Settings()
    assert (values["method.queue_size"], values["training.epochs"], values["training.batch_size"]) == (65536, 200, 256)
    assert (defaults.key_momentum, defaults.temperature, defaults.out_dim) == (0.999, 0.2, 128)
    optimizer = {k.partition(".")[2]: v for k, v in values.items() if k.startswith("optimizer.")}
    settings = OptimizerSettings(**optimizer)
    assert (settings.name, settings.base_lr, settings.weight_decay, settings.warmup_epochs) == ("sgd", 0.03, 1e-4, 0)
    assert (settings.lr_scaling, settings.momentum, settings.final_lr) == ("linear", 0.9, 0.0)
