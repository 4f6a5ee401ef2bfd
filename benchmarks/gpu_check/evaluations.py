"""Every registered evaluator on the device, its figures beside the CPU's for the same network."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu_check.checks import Bench, Check, attempt
from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.dataset import Dataset
from ssl_bench.datasets.shapes.dataset import Shapes
from ssl_bench.evaluation.evaluate import build_evaluators, evaluate_network
from ssl_bench.settings import parse_settings

PART = "evaluation"
TOLERANCE = 0.05
"""Of the figure, or `LEAST` of its unit: a few test images, whose scores are near a tie, may go either way."""
LEAST = 2.0
NETWORK = ("deit_ti16", {"patch_px": 8, "depth": 2})
SETTINGS: dict[str, dict[str, object]] = {
    "voc-jaccard": {"images": 4, "pictures": 0},
    "davis": {"sequences": 1, "short_side_px": 112, "videos": 0},
    "logistic-regression": {"strengths": [0.01, 1.0], "folds": 2},
}
"""Of evaluators that take long or draw."""


def checks(bench: Bench) -> Iterator[Check]:
    """Each evaluator on `shapes`, a network with attention and patch tokens, untrained."""
    data = Shapes(Shapes.Config(train_images=2 * bench.sizes.test_images, test_images=bench.sizes.test_images))
    name, settings = NETWORK
    kind = registry.backbone(name)
    torch.manual_seed(0)
    network = kind(parse_settings(kind.Config, settings, "backbone", name), image_px=data.image_px)
    for evaluator in bench.sizes.evaluators or registry.names("evaluator"):
        if lacking := registry.find("evaluator", evaluator).lacking():
            yield Check(PART, evaluator, None, f"not tried: {lacking}")
            continue
        yield attempt(PART, evaluator, partial(compare, evaluator, network, data, bench))
        bench.clear()


def compare(name: str, network: Backbone, data: Dataset, bench: Bench) -> Check:
    """The primary figure on both."""
    here, label, unit = figure(name, network, data, torch.device("cpu"))
    there, _, _ = figure(name, network, data, bench.device)
    allowed = max(LEAST if unit == "%" else 0.0, TOLERANCE * abs(here))
    words = f"{label} {there:.3f} on the device, {here:.3f} on the CPU"
    return Check(PART, name, abs(there - here) <= allowed, words, figures={"device": there, "cpu": here})


def figure(name: str, network: Backbone, data: Dataset, device: torch.device) -> tuple[float, str, str]:
    """(value, metric, unit) of the primary measurement; nothing is read from the cache or kept in it."""
    with tempfile.TemporaryDirectory() as folder:
        (record,) = evaluate_network(
            copy.deepcopy(network).to(device),
            "untrained",
            build_evaluators([(name, SETTINGS.get(name, {}))]),
            data,
            seed=0,
            device=device,
            workers=0,
            run_dir=Path(folder),
            places=[name],
            keep_features=False,
        )
    primary = next(one for one in record.measurements if one.primary)
    return primary.value, primary.metric, primary.unit
