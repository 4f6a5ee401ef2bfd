"""Benchmarks against lightly: both sides do the same work."""

from __future__ import annotations

from random import Random

import pytest
from PIL import Image

from benchmarks.performance import method_step, probe, views
from benchmarks.performance.ratios import Goal


@pytest.mark.parametrize("method", views.METHODS)
def test_both_make_views_of_the_same_shapes(method: str) -> None:
    image = Image.new("RGB", (32, 32), (90, 120, 30))
    ours = views.our_views(method, views.SMALL)(image, Random(0))
    theirs = views.lightly_views(method, views.SMALL)(image)
    assert [view.shape for view in ours] == [view.shape for view in theirs]


@pytest.mark.parametrize("method", method_step.METHODS)
@pytest.mark.parametrize("arch", method_step.ARCHS)
def test_a_step_has_the_papers_views_and_an_optimizer_of_both_sides(method: str, arch: str) -> None:
    config, optimizer = method_step.settings_of(method_step.Case(method, arch, 2))
    shapes = [view.shape[-1] for view in method_step.views_of(method_step.Case(method, arch, 2), config)]
    assert shapes == [224, 224] + [96] * {"dino": 8, "swav": 6}.get(method, 0)
    assert optimizer.name == "adamw" if arch == "deit_s16" else optimizer.name in ("sgd", "lars")


def test_both_probes_end_with_the_same_weights() -> None:
    """`compare` fails where they differ by more than its tolerance."""
    row = probe.compare(probe.Case(images=40, dim=8, classes=3, epochs=2), 1, Goal())
    assert row.ratio > 0
