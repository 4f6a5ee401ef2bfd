"""Supervised and random: the two baselines; and that labels reach no other method."""

import copy
import math
from pathlib import Path

import pytest
import torch

from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer, set_schedule
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, Progress, Situation
from ssl_bench.training.loop import train
from ssl_bench.training.state import TrainingState
from ssl_bench_plugins.backbones.deit import DeitS16
from ssl_bench_plugins.backbones.resnet import ResNet18
from ssl_bench_plugins.methods import random_init
from ssl_bench_plugins.methods.byol import BYOL
from ssl_bench_plugins.methods.dino import DINO
from ssl_bench_plugins.methods.random_init import RandomInit, RandomInitSettings
from ssl_bench_plugins.methods.simclr import SimCLR
from ssl_bench_plugins.methods.supervised import Supervised, SupervisedSettings
from tests.toy import ToyDataset, make_plan

LATER = Progress(step=7, total_steps=20, epoch=3, total_epochs=10)


def make_convnet(*, drop_path=0.0):
    return ResNet18(ResNet18.Config(width=0.0625), image_px=8)


def make_vit(*, drop_path=0.0):
    return DeitS16(DeitS16.Config(patch_px=4, dim=16, depth=2, heads=2), image_px=8, drop_path=drop_path)


def method(backbone=make_convnet, **settings):
    torch.manual_seed(0)
    return Supervised(SupervisedSettings(**{"classes": 3, "crop_px": 8, **settings}), backbone).double()


def a_batch(seed=1, batch=6):
    generator = torch.Generator().manual_seed(seed)
    view = torch.randn(batch, 3, 8, 8, generator=generator, dtype=torch.float64)
    return Batch((view,), torch.arange(batch), torch.randint(3, (batch,), generator=generator))


def a_plan(folder, epochs=1):
    settings = OptimizerSettings(warmup_epochs=0)
    return make_plan(ToyDataset(count=12).train, Path(folder), settings, epochs=epochs)


# --- supervised


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_cross_entropy(smoothing):
    ours, plain = method(label_smoothing=smoothing), method()
    given = a_batch()
    with torch.no_grad():
        rows = plain.classifier(plain.backbone(given.views[0])).tolist()
    total, right = 0.0, 0
    for scores, label in zip(rows, given.labels.tolist(), strict=True):
        normalizer = math.log(sum(math.exp(score) for score in scores))
        target = [smoothing / 3 + (1 - smoothing) * (k == label) for k in range(3)]
        total -= sum(t * (score - normalizer) for t, score in zip(target, scores, strict=True))
        right += scores.index(max(scores)) == label
    out = ours.step(given, LATER)
    assert out.loss.item() == pytest.approx(total / 6, abs=1e-6)
    assert out.logs["accuracy"].item() == pytest.approx(right / 6)


def test_loss_by_hand():
    """Scores that are all 0: log 3."""
    ours = method()
    torch.nn.init.zeros_(ours.classifier.weight)
    assert ours.step(a_batch(), LATER).loss.item() == pytest.approx(math.log(3), abs=1e-12)


@pytest.mark.parametrize("backbone", [make_convnet, make_vit])
def test_a_step_moves_nothing_but_running_statistics_and_reaches_every_parameter(backbone):
    ours = method(backbone)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    ours.step(a_batch(), LATER).loss.backward()
    moved = {name for name, value in ours.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[2] for name in moved} <= {"running_mean", "running_var", "num_batches_tracked"}
    assert [name for name, p in ours.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert ours.networks() == {"backbone": ours.backbone}


def test_micro_batches_are_the_batch_without_batch_norm():
    whole, parts = method(make_vit), method(make_vit)
    whole.step(a_batch(), LATER).loss.backward()
    for rows in (slice(0, 3), slice(3, 6)):
        given = a_batch()
        (parts.step(Batch((given.views[0][rows],), given.index[rows], given.labels[rows]), LATER).loss / 2).backward()
    for mine, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-10, rtol=1e-6)


def test_ten_steps_follow_the_straight_line():
    ours = method()
    plain = copy.deepcopy(ours)
    settings = OptimizerSettings(name="sgd", base_lr=0.4, warmup_epochs=1, final_lr=0.0, weight_decay=0.01)
    settings = settings.model_copy(update={"final_weight_decay": None})
    optimizer = build_optimizer(settings, ours.parameter_groups())
    velocity = [torch.zeros_like(p) for p in plain.parameters()]
    for step in range(10):
        progress = Progress(step, 10, step // 5, 2)
        set_schedule(optimizer, settings, progress, batch_size=64)
        optimizer.zero_grad()
        out = ours.step(a_batch(step), progress)
        out.loss.backward()
        optimizer.step()
        given = a_batch(step)
        scores = plain.backbone(given.views[0]) @ plain.classifier.weight.T + plain.classifier.bias
        loss = (scores.logsumexp(dim=1) - scores[torch.arange(6), given.labels]).mean()
        gradients = torch.autograd.grad(loss, list(plain.parameters()))
        lr = 0.1 * step / 4 if step < 5 else 0.1 * (1 + math.cos(math.pi * (step - 5) / 5)) / 2
        with torch.no_grad():
            for i, (value, gradient) in enumerate(zip(plain.parameters(), gradients, strict=True)):
                velocity[i] = 0.9 * velocity[i] + gradient + (0.01 * value if value.ndim > 1 else 0)
                value -= lr * velocity[i]
        assert out.loss.item() == pytest.approx(loss.item(), abs=1e-4)
    for value, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(value, other, atol=1e-4, rtol=0)


def test_classes_and_crop_come_from_the_data():
    situation = Situation(32, 1000, 4, 64, classes=7)
    filled = Supervised.fill(SupervisedSettings(), situation)
    assert (filled.classes, filled.crop_px) == (7, 32)
    assert Supervised.fill(filled, situation) == filled
    assert Supervised.fill(SupervisedSettings(classes=9), situation).classes == 9


@pytest.mark.parametrize(("asked", "known"), [(None, 0), (None, 1), (5, 7), (3, 0)])
def test_too_few_classes_are_answered(asked, known):
    with pytest.raises(UserError, match=rf"has {known} classes.*'supervised'"):
        Supervised.fill(SupervisedSettings(classes=asked), Situation(32, 1000, 4, 64, classes=known))


def test_the_view_is_a_random_crop_and_a_flip():
    ((crop, count),) = Supervised.make_views(SupervisedSettings(crop_px=224)).views
    assert (count, crop.crop_px, crop.scale, crop.flip_probability) == (1, 224, (0.08, 1.0), 0.5)
    assert crop.jitter_probability == crop.gray_probability == crop.blur_probability == crop.solarize_probability == 0


# --- labels


def test_labels_reach_supervised_only(tmp_path):
    assert Supervised.needs_labels
    for other in (BYOL, SimCLR, DINO, RandomInit):
        assert not other.needs_labels

    class Blind(Supervised):
        needs_labels = False

    plan, config = a_plan(tmp_path), SupervisedSettings(classes=3, crop_px=8)
    seen = list(plan.batches(Supervised(config, make_convnet), Supervised.make_views(config)))
    assert all(batch.labels.tolist() == [plan.split.labels[i] for i in batch.index] for batch in seen)
    unseen = list(plan.batches(Blind(config, make_convnet), Supervised.make_views(config)))
    assert all(batch.labels is None for batch in unseen)
    with pytest.raises(AssertionError, match="needs_labels"):
        method().step(Batch(a_batch().views, a_batch().index), LATER)


# --- random


def test_random_starts_from_the_weights_that_others_start_from():
    torch.manual_seed(3)
    untrained = RandomInit(RandomInitSettings(), make_convnet)
    torch.manual_seed(3)
    first = SimCLR(SimCLR.Config(), make_convnet).networks()["backbone"]
    for mine, other in zip(untrained.networks()["backbone"].parameters(), first.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_no_epochs_train_nothing(tmp_path):
    untrained = RandomInit(RandomInitSettings(), make_convnet)
    optimizer = build_optimizer(OptimizerSettings(), untrained.parameter_groups())
    before = copy.deepcopy(untrained.state_dict())
    views = RandomInit.make_views(RandomInitSettings())
    state = train(untrained, views, optimizer, a_plan(tmp_path, epochs=0), TrainingState())
    assert state.step == 0
    assert all(torch.equal(value, before[name]) for name, value in untrained.state_dict().items())


def test_epochs_are_answered(tmp_path):
    untrained = RandomInit(RandomInitSettings(), make_convnet)
    optimizer = build_optimizer(OptimizerSettings(), untrained.parameter_groups())
    with pytest.raises(UserError, match=r"'random' is the untrained network.*--epochs 0"):
        train(untrained, RandomInit.make_views(RandomInitSettings()), optimizer, a_plan(tmp_path), TrainingState())
    assert all(preset.values["training.epochs"] == 0 for preset in random_init.PRESETS.values())


# --- presets
