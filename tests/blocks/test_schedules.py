"""Schedules against arrays built as the DINO authors build them, and against values computed by hand."""

import math

import numpy as np
import pytest

from ssl_bench.blocks.ema import momentum_at
from ssl_bench.blocks.optimizers import OptimizerSettings, learning_rate, weight_decay
from ssl_bench.blocks.schedules import cosine, linear_ramp, scaled_lr
from ssl_bench.method import Progress


def as_an_array(base, final, epochs, steps_per_epoch, warmup_epochs=0, start=0.0):
    """Every value of the schedule, written out: numpy's linspace, then a loop over the cosine's own steps."""
    warmup_steps = warmup_epochs * steps_per_epoch
    values = list(np.linspace(start, base, warmup_steps))
    left = epochs * steps_per_epoch - warmup_steps
    for step in range(left):
        values.append(final + 0.5 * (base - final) * (1 + math.cos(math.pi * step / left)))
    return values


@pytest.mark.parametrize("warmup_epochs", [0, 1, 3, 10])
def test_cosine_follows_the_authors_array(warmup_epochs):
    expected = as_an_array(0.3, 0.01, epochs=10, steps_per_epoch=7, warmup_epochs=warmup_epochs)
    values = [cosine(step, 70, 0.3, 0.01, warmup_steps=7 * warmup_epochs) for step in range(70)]
    assert values == pytest.approx(expected, abs=1e-12)


def test_cosine_by_hand():
    assert cosine(0, 4, 1.0, 0.0) == 1.0
    assert cosine(2, 4, 1.0, 0.0) == pytest.approx(0.5)
    assert cosine(4, 4, 1.0, 0.0) == pytest.approx(0.0)
    assert [cosine(step, 8, 1.0, 0.0, warmup_steps=3) for step in range(4)] == pytest.approx([0.0, 0.5, 1.0, 1.0])


def test_a_warmup_longer_than_the_run_is_cut_off():
    values = [cosine(step, 5, 1.0, 0.0, warmup_steps=11) for step in range(5)]
    assert values == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_linear_ramp_is_linspace_then_flat():
    values = [linear_ramp(epoch, 30, 0.04, 0.07) for epoch in range(100)]
    assert values == pytest.approx([*np.linspace(0.04, 0.07, 30), *[0.07] * 70], abs=1e-12)
    assert linear_ramp(0, 0, 0.04, 0.07) == 0.07
    assert linear_ramp(0, 1, 0.04, 0.07) == 0.04


def test_scaled_lr():
    assert scaled_lr(5e-4, 1024, "linear") == pytest.approx(2e-3)
    assert scaled_lr(5e-4, 1024, "sqrt") == pytest.approx(1e-3)
    assert scaled_lr(5e-4, 1024, "none") == 5e-4


def test_learning_rate_weight_decay_and_momentum_are_dinos():
    settings = OptimizerSettings()
    lr = as_an_array(5e-4 * 64 / 256, 1e-6, epochs=20, steps_per_epoch=5, warmup_epochs=10)
    decay = as_an_array(0.04, 0.4, epochs=20, steps_per_epoch=5)
    momentum = as_an_array(0.996, 1.0, epochs=20, steps_per_epoch=5)
    for step in range(100):
        progress = Progress(step, 100, step // 5, 20)
        assert learning_rate(settings, progress, 64) == pytest.approx(lr[step], abs=1e-12)
        assert weight_decay(settings, progress) == pytest.approx(decay[step], abs=1e-12)
        assert momentum_at(step, 100, 0.996) == pytest.approx(momentum[step], abs=1e-12)


def test_constant_weight_decay():
    settings = OptimizerSettings(weight_decay=1e-4, final_weight_decay=None)
    assert {weight_decay(settings, Progress(step, 9, 0, 1)) for step in range(9)} == {1e-4}
