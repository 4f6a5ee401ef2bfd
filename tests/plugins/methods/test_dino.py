"""DINO: its loss against the equations written with loops, against lightly's, and what the contract promises.

lightly's DINOLoss agrees with equation 3 and the authors' code in loss and center; it moves the center inside the
loss, where ours moves in `update`, and keeps it with shape (1, 1, K). Its head normalizes the last layer's rows
before the product (torch's weight_norm), ours divides the scores: the same up to rounding. Before a batch norm, which
takes it off again, lightly's leaves the linear layer's bias out; the authors' and ours have it.
"""

import copy
import math
import random
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from ssl_bench.blocks.heads import NormalizedLinear
from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer, set_schedule
from ssl_bench.blocks.sinkhorn import sinkhorn
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, Progress, Situation
from ssl_bench.training.micro_batches import concatenated
from ssl_bench_plugins.backbones.deit import DeitS16
from ssl_bench_plugins.backbones.resnet import ResNet18
from ssl_bench_plugins.methods.dino import DINO, DINOSettings, Head, cross_entropy, entropy, squared_error

K = 12
LATER = Progress(step=7, total_steps=20, epoch=3, total_epochs=10)


def scores(seed=0, teacher_views=2, views=5, batch=3):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(views, batch, K, generator=generator, dtype=torch.float64)
    return torch.randn(teacher_views, batch, K, generator=generator, dtype=torch.float64), student


def softmax(numbers):
    exponents = [math.exp(number) for number in numbers]
    return [exponent / sum(exponents) for exponent in exponents]


def pairs(teacher, student):
    """Every (teacher's numbers, student's numbers) of one sample seen in two different views."""
    for i, j, sample in product(range(len(teacher)), range(len(student)), range(teacher.shape[1])):
        if i != j:
            yield teacher[i, sample].tolist(), student[j, sample].tolist()


def make_backbone(*, drop_path=0.0):
    return DeitS16(DeitS16.Config(patch_px=4, dim=16, depth=2, heads=2), image_px=16, drop_path=drop_path)


def make_convnet(*, drop_path=0.0):
    return ResNet18(ResNet18.Config(width=0.0625), image_px=16)


def method(backbone=make_backbone, **settings):
    torch.manual_seed(0)
    small = {"out_dim": K, "hidden_dim": 24, "bottleneck_dim": 8, "local_views": 3, "drop_path": 0.0}
    return DINO(DINOSettings(**{**small, **settings}), backbone).double()


def views(batch=4, local_views=3):
    generator = torch.Generator().manual_seed(1)
    sizes = (16, 16) + (8,) * local_views
    return tuple(torch.randn(batch, 3, px, px, generator=generator, dtype=torch.float64) for px in sizes)


def a_batch(given=None):
    given = views() if given is None else given
    return Batch(given, torch.arange(len(given[0])))


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(before, after):
    return all(torch.equal(value, after[name]) for name, value in before.items())


# --- the loss


@pytest.mark.parametrize(("teacher_views", "n_views"), [(2, 2), (2, 5), (1, 3)])
def test_cross_entropy_is_equation_3(teacher_views, n_views):
    teacher, student = scores(teacher_views=teacher_views, views=n_views)
    center = torch.linspace(-1, 1, K, dtype=torch.float64)
    terms = []
    for t, s in pairs(teacher, student):
        targets = softmax([(x - c) / 0.07 for x, c in zip(t, center.tolist(), strict=True)])
        said = softmax([x / 0.1 for x in s])
        terms.append(-sum(p * math.log(q) for p, q in zip(targets, said, strict=True)))
    probabilities = torch.softmax((teacher - center) / 0.07, dim=-1)
    found = cross_entropy(probabilities, student, 0.1)
    assert found.item() == pytest.approx(sum(terms) / len(terms), abs=1e-6)


def test_squared_error_is_byols_equation_2():
    teacher, student = scores()
    terms = []
    for t, s in pairs(teacher, student):
        t_norm, s_norm = math.sqrt(sum(x * x for x in t)), math.sqrt(sum(x * x for x in s))
        terms.append(sum((x / t_norm - y / s_norm) ** 2 for x, y in zip(t, s, strict=True)))
    assert squared_error(teacher, student).item() == pytest.approx(sum(terms) / len(terms), abs=1e-6)


def test_entropy_and_divergence_add_up_to_the_loss():
    teacher, student = scores()
    probabilities = torch.softmax(teacher / 0.04, dim=-1)
    divergences, entropies = [], []
    for t, s in pairs(teacher, student):
        targets, said = softmax([x / 0.04 for x in t]), softmax([x / 0.1 for x in s])
        divergences.append(sum(p * math.log(p / q) for p, q in zip(targets, said, strict=True)))
        entropies.append(-sum(p * math.log(p) for p in targets))
    h, kl = sum(entropies) / len(entropies), sum(divergences) / len(divergences)
    assert entropy(probabilities).item() == pytest.approx(h, abs=1e-6)
    assert cross_entropy(probabilities, student, 0.1).item() == pytest.approx(h + kl, abs=1e-6)


def test_loss_gradient_and_center_are_lightlys():
    from lightly.loss import DINOLoss

    teacher, student = scores(views=6)
    center = torch.linspace(-1, 1, K, dtype=torch.float64)
    theirs = DINOLoss(output_dim=K).double()
    theirs.center.copy_(center)
    student.requires_grad_(True)
    their_loss = theirs(list(teacher), list(student), teacher_temp=0.0625)
    (their_gradient,) = torch.autograd.grad(their_loss, student)
    our_loss = cross_entropy(torch.softmax((teacher - center) / 0.0625, dim=-1), student, 0.1)
    (our_gradient,) = torch.autograd.grad(our_loss, student)
    torch.testing.assert_close(our_loss, their_loss, atol=1e-9, rtol=0)
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-9, rtol=0)
    ours = method()
    ours.center.copy_(center)
    ours.update({"scores": teacher.sum(dim=(0, 1))[None], "summed": torch.tensor([teacher[..., 0].numel()])}, LATER)
    torch.testing.assert_close(ours.center, theirs.center[0, 0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_in_loops_and_lightlys(iterations):
    from lightly.loss.swav_loss import sinkhorn as lightlys

    given, _ = scores()
    found = sinkhorn(given, 0.05, iterations)
    for view in range(2):
        table = [[math.exp(x / 0.05) for x in row] for row in given[view].tolist()]
        for _ in range(iterations):
            for column in range(K):
                total = sum(row[column] for row in table)
                for row in table:
                    row[column] /= total
            table = [[x / sum(row) for x in row] for row in table]
        assert found[view].flatten().tolist() == pytest.approx([x for row in table for x in row], abs=1e-6)
        theirs = lightlys(given[view], iterations=iterations, epsilon=0.05)
        torch.testing.assert_close(found[view], theirs, atol=1e-6, rtol=0)
    assert found.sum(dim=-1).flatten().tolist() == pytest.approx([1.0] * 6)


def test_sinkhorn_does_not_overflow():
    assert torch.isfinite(sinkhorn(torch.tensor([[90.0, 89.0], [88.0, 90.0]]), 0.04, 3)).all()


# --- the head


@pytest.mark.parametrize("learn_gain", [False, True])
def test_normalized_rows_are_weight_normalization(learn_gain):
    torch.manual_seed(0)
    ours = NormalizedLinear(4, 6, learn_gain=learn_gain).double()
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(4, 6, bias=False).double())
    with torch.no_grad():
        theirs.parametrizations.weight.original1.copy_(ours.rows)
        theirs.parametrizations.weight.original0.fill_(1.0)
    features = torch.randn(3, 4, dtype=torch.float64)
    direction = torch.randn(3, 6, dtype=torch.float64)
    for layer in (ours, theirs):
        (layer(features) * direction).sum().backward()
    torch.testing.assert_close(ours(features), theirs(features), atol=1e-12, rtol=0)
    weight = theirs.parametrizations.weight
    torch.testing.assert_close(ours.rows.grad, weight.original1.grad, atol=1e-10, rtol=0)
    if learn_gain:
        torch.testing.assert_close(ours.gain.grad, weight.original0.grad, atol=1e-10, rtol=0)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_the_head_is_lightlys(batch_norm):
    from lightly.models.modules import DINOProjectionHead

    config = DINOSettings(hidden_dim=24, bottleneck_dim=8, out_dim=K, head_batch_norm=batch_norm)
    ours = Head(16, config).double()
    theirs = DINOProjectionHead(16, 24, 8, K, batch_norm=batch_norm).double()
    with torch.no_grad():
        kinds = nn.Linear, nn.BatchNorm1d, nn.GELU
        mine, others = ([m for m in head.modules() if type(m) in kinds] for head in (ours.mlp, theirs.layers))
        for layer, other in zip(mine, others, strict=True):
            layer.load_state_dict(other.state_dict(), strict=False)
        ours.last_layer.rows.copy_(theirs.last_layer.weight_v)
    features = torch.randn(5, 16, dtype=torch.float64)
    torch.testing.assert_close(ours(features), theirs(features), atol=1e-10, rtol=0)


def test_the_head_starts_as_the_authors():
    torch.manual_seed(0)
    head = Head(384, DINOSettings(out_dim=512))
    linears = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linears] == [(2048, 384), (2048, 2048), (256, 2048)]
    assert all(layer.weight.std().item() == pytest.approx(0.02, rel=0.05) for layer in linears)
    assert all(not layer.bias.any() for layer in linears)
    assert sum(isinstance(layer, nn.GELU) for layer in head.mlp) == 2
    assert head.last_layer.gain is None
    assert Head(384, DINOSettings(out_dim=512, norm_last_layer=False)).last_layer.gain.shape == (512, 1)


# --- the contract


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"assignment": "sinkhorn"},
        {"assignment": "softmax"},
        {"loss": "mse"},
        {"predictor": True},
        {"norm_last_layer": False},
        {"head_layers": 1},
    ],
    ids=str,
)
def test_a_step_moves_nothing_and_reaches_every_trainable_parameter(settings):
    dino = method(**settings)
    before = state(dino)
    out = dino.step(a_batch(), LATER)
    assert same(before, state(dino))
    assert out.loss.shape == ()
    out.loss.backward()
    assert all(p.grad is None for p in dino.teacher.parameters())
    missing = [name for name, p in dino.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert all(p.grad.abs().sum() > 0 for p in dino.parameters() if p.requires_grad)
    in_groups = [p for group in dino.parameter_groups() for p in group.parameters]
    assert {id(p) for p in in_groups} == {id(p) for p in dino.student.parameters()}
    assert all(not value.requires_grad for value in (*out.logs.values(), *out.carry.values()))
    assert all(len(value) == 1 for value in out.carry.values())


def mean_score(out):
    return out.carry["scores"][0] / out.carry["summed"]


def test_logs_are_the_definitions():
    dino = method()
    dino.center.copy_(torch.linspace(-0.1, 0.1, K))
    out = dino.step(a_batch(), LATER)
    with torch.no_grad():
        teacher, student = dino.teacher(views()[:2]), dino.student(views())
    temperature = 0.04 + 0.03 * 3 / 29
    targets = torch.softmax((teacher - dino.center) / temperature, dim=-1)
    assert out.logs["loss"].item() == pytest.approx(cross_entropy(targets, student, 0.1).item(), abs=1e-9)
    assert out.logs["teacher_entropy"].item() == pytest.approx(entropy(targets).item(), abs=1e-9)
    assert (out.logs["teacher_entropy"] + out.logs["kl"]).item() == pytest.approx(out.loss.item(), abs=1e-9)
    said = torch.log_softmax(student / 0.1, dim=-1)
    others = [(t, s) for t in range(2) for s in range(len(said)) if s != t]
    divergences = [functional.kl_div(said[s], targets[t], reduction="batchmean") for t, s in others]
    assert out.logs["kl"].item() == pytest.approx(torch.stack(divergences).mean().item(), abs=1e-9)
    torch.testing.assert_close(mean_score(out), teacher.flatten(0, 1).mean(dim=0))


def test_each_view_is_compared_with_the_others_only():
    """With two views, the loss is H(t1, s2)/2 + H(t2, s1)/2 (algorithm 1)."""
    dino = method(local_views=0)
    given = views(local_views=0)
    with torch.no_grad():
        teacher = torch.softmax(dino.teacher(given) / 0.04, dim=-1)
        student = torch.log_softmax(dino.student(given) / 0.1, dim=-1)
        expected = -(teacher[0] * student[1] + teacher[1] * student[0]).sum(dim=-1).mean() / 2
    out = dino.step(a_batch(given), Progress(0, 20, 0, 10))
    assert out.loss.item() == pytest.approx(expected.item(), abs=1e-9)


def test_the_center_moves_after_it_was_used():
    dino = method()
    first = dino.step(a_batch(), LATER)
    dino.update(first.carry, LATER)
    torch.testing.assert_close(dino.center, 0.1 * mean_score(first))
    second = dino.step(a_batch(), LATER)
    assert second.loss.item() != first.loss.item()
    center = dino.center.clone()
    dino.update(second.carry, LATER)
    torch.testing.assert_close(dino.center, 0.9 * center + 0.1 * mean_score(second))
    without = method(assignment="softmax")
    without.update(first.carry, LATER)
    assert not without.center.any()


def test_micro_batches_are_the_batch():
    whole, parts = method(), method()
    out = whole.step(a_batch(), LATER)
    out.loss.backward()
    halves = [parts.step(a_batch(tuple(v[i : i + 2] for v in views())), LATER) for i in (0, 2)]
    for half in halves:
        (half.loss / 2).backward()
    for mine, other in zip(whole.student.parameters(), parts.student.parameters(), strict=True):
        # timm resamples positions for the local views in float32; all else agrees to 1e-12
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-8, rtol=1e-5)
    whole.update(out.carry, LATER)
    parts.update(concatenated([half.carry for half in halves]), LATER)
    torch.testing.assert_close(whole.center, parts.center)


def test_the_last_layer_rests_in_its_epochs_after_clipping():
    dino = method(freeze_last_layer_epochs=2, norm_last_layer=False)
    for epoch, rests in ((0, True), (1, True), (2, False)):
        dino.zero_grad()
        (dino.step(a_batch(), LATER).loss * 1e4).backward()
        dino.before_optimizer(Progress(epoch * 2, 20, epoch, 10))
        gradients = [p.grad for p in dino.student.head.last_layer.parameters()]
        assert all((gradient is None) == rests for gradient in gradients)
        norms = [p.grad.norm().item() for p in dino.student.parameters() if p.grad is not None]
        assert max(norms) == pytest.approx(3.0, abs=1e-3)


def test_clipping_can_be_turned_off():
    dino = method(clip_norm=0.0, freeze_last_layer_epochs=0)
    (dino.step(a_batch(), LATER).loss * 1e4).backward()
    before = [p.grad.clone() for p in dino.student.parameters()]
    dino.before_optimizer(LATER)
    assert all(torch.equal(p.grad, old) for p, old in zip(dino.student.parameters(), before, strict=True))


@pytest.mark.parametrize("teacher", ["momentum", "student_copy", "previous_iteration", "previous_epoch"])
def test_where_the_teachers_weights_come_from(teacher):
    """Two epochs of three steps; the student's weights are known before each step."""
    dino = method(teacher=teacher, drop_path=0.0)
    settings = OptimizerSettings(warmup_epochs=0, base_lr=0.1)
    optimizer = build_optimizer(settings, dino.parameter_groups())
    students, average = [], state(dino.student)
    for step in range(6):
        progress = Progress(step, 6, step // 3, 2)
        students.append(state(dino.student))
        expected = {
            "momentum": average,
            "student_copy": students[-1],
            "previous_iteration": students[max(0, step - 1)],
            "previous_epoch": students[step // 3 * 3],
        }[teacher]
        for name, value in dino.teacher.state_dict().items():
            torch.testing.assert_close(value, expected[name], atol=1e-12, rtol=0)
        set_schedule(optimizer, settings, progress, 4)
        optimizer.zero_grad()
        out = dino.step(a_batch(), progress)
        out.loss.backward()
        dino.before_optimizer(progress)
        optimizer.step()
        dino.update(out.carry, progress)
        m = 1 - 0.004 * (1 + math.cos(math.pi * step / 6)) / 2
        average = {name: m * old + (1 - m) * dino.student.state_dict()[name] for name, old in average.items()}
    assert list(dino.networks().items()) == [("teacher", dino.teacher.backbone), ("student", dino.student.backbone)]


@pytest.mark.parametrize("stopped_after", [0, 1, 4])
def test_the_teacher_of_the_previous_iteration_survives_a_stop(stopped_after):
    """Figure 5.9 of the thesis: the teacher of step t is the student that entered step t - 1, resumed or not."""

    def build():
        dino = method(teacher="previous_iteration")
        return dino, build_optimizer(settings, dino.parameter_groups())

    settings = OptimizerSettings(warmup_epochs=0, base_lr=0.1)
    dino, optimizer = build()
    students = []
    for step in range(6):
        if step == stopped_after:
            kept = copy.deepcopy((dino.state_dict(), optimizer.state_dict()))
            dino, optimizer = build()
            with torch.no_grad():
                for parameter in dino.parameters():
                    parameter.fill_(0.5)  # nothing may be left of what the new object started with
            dino.load_state_dict(kept[0])
            optimizer.load_state_dict(kept[1])
        progress = Progress(step, 6, step // 3, 2)
        students.append(state(dino.student))
        for name, value in dino.teacher.state_dict().items():
            assert torch.equal(value, students[max(0, step - 1)][name])
        set_schedule(optimizer, settings, progress, 4)
        optimizer.zero_grad()
        out = dino.step(a_batch(), progress)
        out.loss.backward()
        before = state(dino)
        dino.before_optimizer(progress)
        assert all(torch.equal(value, before[name]) for name, value in dino.state_dict().items())
        optimizer.step()
        dino.update(out.carry, progress)


def test_a_convnets_teacher_keeps_its_own_running_statistics():
    """Parameters are averaged, buffers are not: the teacher's are those of the batches that it saw."""
    dino = method(make_convnet)
    dino.step(a_batch(), LATER)
    ours, theirs = dino.student.backbone.network.bn1, dino.teacher.backbone.network.bn1
    mean, weight = theirs.running_mean.clone(), theirs.weight.clone()
    assert not torch.equal(ours.running_mean, mean)
    with torch.no_grad():
        ours.weight.add_(1.0)
    dino.update({"scores": torch.zeros(1, K, dtype=torch.float64), "summed": torch.ones(1)}, LATER)
    assert torch.equal(theirs.running_mean, mean)
    assert not torch.equal(theirs.weight, weight)
    assert ours.num_batches_tracked == 2  # global and local views are two batches
    assert theirs.num_batches_tracked == 1


def test_only_the_student_drops_paths():
    dino = method(drop_path=0.5)
    assert [block.drop_path1.drop_prob for block in dino.student.backbone.network.blocks[1:]] == [0.5]
    assert all(isinstance(block.drop_path1, nn.Identity) for block in dino.teacher.backbone.network.blocks)


def test_bf16_autocast_changes_little_and_gives_a_full_precision_loss():
    dino = method().float()
    given = a_batch(tuple(view.float() for view in views()))
    full = dino.step(given, LATER)
    with torch.autocast("cpu", torch.bfloat16):
        half = dino.step(given, LATER)
    assert half.loss.dtype == half.carry["scores"].dtype == torch.float32
    assert half.loss.item() == pytest.approx(full.loss.item(), rel=0.02)
    half.loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in dino.student.parameters())


def test_the_state_is_all_that_a_copy_needs():
    dino, other = method(), method()
    for parameter in dino.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    dino.center.fill_(0.25)
    other.load_state_dict(copy.deepcopy(dino.state_dict()))
    assert torch.equal(dino.step(a_batch(), LATER).loss, other.step(a_batch(), LATER).loss)


# --- settings and views


@pytest.mark.parametrize(
    ("image_px", "patch_px", "local_px"),
    [
        (224, 16, 96),
        (224, 8, 96),
        (220, 5, 95),
        (32, 4, 12),
        (64, 8, 24),
        (32, 16, 16),
        (32, None, 16),
        (224, None, 96),
    ],
)
def test_sizes_of_crops_follow_image_and_patch(image_px, patch_px, local_px):
    filled = DINO.fill(DINOSettings(), Situation(image_px, 1000, patch_px, 64))
    assert (filled.global_crop_px, filled.local_crop_px) == (image_px, local_px)
    assert DINO.fill(filled, Situation(image_px, 1000, patch_px, 64)) == filled


def test_a_patch_that_does_not_divide_a_crop_is_answered():
    with pytest.raises(UserError, match=r"global view.*224 px.*patches of 5 px.*220 or 225"):
        DINO.fill(DINOSettings(), Situation(224, 1000, 5, 64))
    with pytest.raises(UserError, match=r"method\.local_crop_px.*100 px.*16 px.*96 or 112"):
        DINO.fill(DINOSettings(local_crop_px=100), Situation(224, 1000, 16, 64))


def test_without_local_views_the_global_ones_may_be_smaller():
    situation = Situation(224, 1000, 16, 64)
    assert DINO.fill(DINOSettings(), situation).global_scale == (0.4, 1.0)
    assert DINO.fill(DINOSettings(local_views=0), situation).global_scale == (0.14, 1.0)
    assert DINO.fill(DINOSettings(local_views=0, global_scale=(0.3, 1)), situation).global_scale == (0.3, 1.0)


@pytest.mark.parametrize(("image_px", "sigma"), [(224, 2.0), (96, 2.0), (48, 1.0)])
def test_blur_shrinks_below_96_px(image_px, sigma):
    assert DINO.fill(DINOSettings(), Situation(image_px, 1000, None, 64)).blur_sigma_px == (0.1, sigma)


def test_views_are_the_papers():
    filled = DINO.fill(DINOSettings(), Situation(224, 1000, 16, 64))
    made = DINO.make_views(filled)
    described = [
        (crop.crop_px, crop.scale, crop.blur_probability, crop.solarize_probability, n) for crop, n in made.views
    ]
    assert described == [
        (224, (0.4, 1.0), 1.0, 0.0, 1),
        (224, (0.4, 1.0), 0.1, 0.2, 1),
        (96, (0.05, 0.4), 0.5, 0.0, 8),
    ]
    for crop, _ in made.views:
        assert (crop.brightness, crop.contrast, crop.saturation, crop.hue) == (0.4, 0.4, 0.2, 0.1)
        assert (crop.flip_probability, crop.jitter_probability, crop.gray_probability) == (0.5, 0.8, 0.2)
        assert (crop.interpolation, crop.blur_sigma_px) == ("bicubic", (0.1, 2.0))


def test_views_are_a_function_of_the_samples_random_numbers():
    filled = DINO.fill(DINOSettings(local_views=2), Situation(32, 1000, 4, 64))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    make = DINO.make_views(filled)
    first, second = make(image, random.Random(5)), make(image, random.Random(5))
    assert [tuple(view.shape) for view in first] == [(3, 32, 32)] * 2 + [(3, 12, 12)] * 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
