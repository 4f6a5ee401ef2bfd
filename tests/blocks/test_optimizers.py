"""Optimizers against updates written number by number from their papers."""

import math

import pytest
import torch
from torch import nn

from ssl_bench.blocks.optimizers import LARS, OptimizerSettings, build_optimizer, clip_each, set_schedule
from ssl_bench.errors import UserError
from ssl_bench.method import ParameterGroup, Progress
from ssl_bench.settings import parse_settings

LR, DECAY = 0.1, 0.05


def parameters(dtype=torch.float64):
    torch.manual_seed(0)
    matrix, kernel, bias = torch.randn(3, 4), torch.randn(2, 3, 2, 2), torch.randn(3)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    return [nn.Parameter(value.to(dtype)) for value in (matrix, kernel, bias)]


def groups(values):
    return [
        ParameterGroup("decayed", values[:2]),
        ParameterGroup("undecayed", values[2:], weight_decay=False, lr_factor=0.5),
        ParameterGroup("empty", []),
    ]


def gradients(step, values):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(v.shape, generator=generator, dtype=torch.float64) for v in values]


def run(settings, steps=5):
    values = parameters()
    optimizer = build_optimizer(settings, groups(values))
    for step in range(steps):
        set_schedule(optimizer, settings, Progress(step, 10**9, 0, 1), 256)
        for value, gradient in zip(values, gradients(step, values), strict=True):
            value.grad = gradient.to(value.dtype).contiguous(
                memory_format=torch.channels_last if value.ndim == 4 else torch.contiguous_format
            )
        optimizer.step()
    return [value.detach() for value in values]


def settings(name, **more):
    return OptimizerSettings(
        name=name, base_lr=LR, warmup_epochs=0, final_lr=LR, weight_decay=DECAY, final_weight_decay=None, **more
    )


def by_hand(rule, steps=5):
    """`rule(numbers, gradients, state, lr, decay, is_decayed)` on plain lists, tensor by tensor."""
    results = []
    for index, value in enumerate(parameters()):
        numbers, state = value.flatten().tolist(), {}
        decayed = index < 2
        for step in range(steps):
            slopes = gradients(step, parameters())[index].flatten().tolist()
            lr = LR if decayed else LR * 0.5
            numbers = rule(numbers, slopes, state, lr, DECAY if decayed else 0.0, decayed)
        results.append(numbers)
    return results


def agree(found, expected):
    for tensor, numbers in zip(found, expected, strict=True):
        assert tensor.flatten().tolist() == pytest.approx(numbers, abs=1e-6)


def test_lars_is_equation_6_with_the_decayed_gradients_norm():
    def rule(numbers, slopes, state, lr, decay, adapted):
        moved = [g + decay * w for w, g in zip(numbers, slopes, strict=True)]
        trust = 1.0
        if adapted:
            trust = 0.001 * math.sqrt(sum(w * w for w in numbers)) / math.sqrt(sum(d * d for d in moved))
        before = state.get("velocity", [0.0] * len(numbers))
        state["velocity"] = [0.9 * v + trust * d for v, d in zip(before, moved, strict=True)]
        return [w - lr * v for w, v in zip(numbers, state["velocity"], strict=True)]

    agree(run(settings("lars")), by_hand(rule))


def test_lars_trusts_fully_where_a_norm_is_zero():
    weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    optimizer = LARS([{"params": [weight]}], lr=0.5)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert weight.flatten().tolist() == [-0.5] * 4


def test_adamw_is_loshchilov_and_hutter():
    def rule(numbers, slopes, state, lr, decay, _):
        state["t"] = t = state.get("t", 0) + 1
        zeros = [0.0] * len(numbers)
        first = state["first"] = [0.9 * m + 0.1 * g for m, g in zip(state.get("first", zeros), slopes, strict=True)]
        second = [0.999 * v + 0.001 * g * g for v, g in zip(state.get("second", zeros), slopes, strict=True)]
        state["second"] = second
        return [
            w - lr * decay * w - lr * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
            for w, m, v in zip(numbers, first, second, strict=True)
        ]

    agree(run(settings("adamw")), by_hand(rule))


def test_sgd_with_momentum():
    def rule(numbers, slopes, state, lr, decay, _):
        moved = [g + decay * w for w, g in zip(numbers, slopes, strict=True)]
        before = state.get("velocity")
        state["velocity"] = [0.9 * v + d for v, d in zip(before, moved, strict=True)] if before else moved
        return [w - lr * v for w, v in zip(numbers, state["velocity"], strict=True)]

    agree(run(settings("sgd")), by_hand(rule))


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_a_parameter_without_gradient_stays_and_state_survives_a_stop(name):
    def train(optimizer, values, steps):
        for step in steps:
            set_schedule(optimizer, settings(name), Progress(step, 9, 0, 1), 256)
            for value, gradient in zip(values, gradients(step, values), strict=True):
                value.grad = gradient.clone()
            values[0].grad = None
            optimizer.step()

    whole = parameters()
    start = whole[0].detach().clone()
    train(build_optimizer(settings(name), groups(whole)), whole, range(4))
    assert torch.equal(whole[0], start)

    stopped = parameters()
    first = build_optimizer(settings(name), groups(stopped))
    train(first, stopped, range(2))
    second = build_optimizer(settings(name), groups(stopped))
    second.load_state_dict(first.state_dict())
    train(second, stopped, range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(whole, stopped, strict=True))


def test_the_schedule_reaches_each_group():
    values = parameters()
    chosen = OptimizerSettings(base_lr=0.1, warmup_epochs=1, weight_decay=0.04, final_weight_decay=0.4)
    optimizer = build_optimizer(chosen, groups(values))
    written = set_schedule(optimizer, chosen, Progress(50, 100, 5, 10), 512)
    decayed, undecayed = optimizer.param_groups
    assert (decayed["name"], undecayed["name"]) == ("decayed", "undecayed")
    assert decayed["lr"] == written["lr"] > 0
    assert undecayed["lr"] == written["lr"] * 0.5
    assert decayed["weight_decay"] == written["weight_decay"] == pytest.approx(0.22)
    assert undecayed["weight_decay"] == 0.0


def test_clip_each_is_the_authors_loop():
    values = parameters()
    for value, scale in zip(values, (10.0, 1e-3, 3.0), strict=True):
        value.grad = torch.randn_like(value) * scale
    expected = []
    for value in values:
        norm = math.sqrt(sum(g * g for g in value.grad.flatten().tolist()))
        factor = min(1.0, 3.0 / (norm + 1e-6))
        expected.append([g * factor for g in value.grad.flatten().tolist()])
    clip_each([*values, nn.Parameter(torch.zeros(1))], 3.0)
    for value, numbers in zip(values, expected, strict=True):
        assert value.grad.flatten().tolist() == pytest.approx(numbers, abs=1e-9)


def test_a_wrong_name_is_answered():
    with pytest.raises(UserError, match=r"optimizer\.name.*'adam'.*'adamw', 'sgd' or 'lars'"):
        parse_settings(OptimizerSettings, {"name": "adam"}, "optimizer", "the optimizer")
