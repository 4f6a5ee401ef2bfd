"""The linear probe's whole grid of learning rates in one pass against one training per rate.

    python -m benchmarks.performance.probe --images 8000 --dim 1536 --classes 10 --epochs 4

With --pass both sides begin with the network's pass over the images, deit_ti16 at 64 px: one for the whole grid, and
one for every rate, as a probe that is trained rate by rate takes it (DINO's eval_linear.py takes one each epoch).

The peer trains one `torch.nn.Linear` a rate with torch's SGD and cross-entropy, as DINO's eval_linear.py does, on the
same features, batches, schedule and initial weights; the weights of both are compared after every turn. Features are
random numbers around a center for each class.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.performance.ratios import Goal, Ratio, by_turns, faster
from ssl_bench import registry
from ssl_bench.evaluators.linear_probe.evaluator import LinearProbeConfig
from ssl_bench.evaluators.linear_probe.training import ProbeSettings, train_probes

TOLERANCE = 1e-3
"""Largest difference of a weight, relative to the largest weight: both sum in float32, in other orders."""


def one_by_one(extract: Callable[[], Tensor], labels: Tensor, classes: int, settings: ProbeSettings) -> Tensor:
    """(rates, dim, classes): the weights of a linear layer for each rate, trained one after another."""
    found = []
    for rate in settings.rates:
        features = extract()
        generator = torch.Generator().manual_seed(settings.seed)
        layer = nn.Linear(features.shape[1], classes)
        drawn = torch.empty(features.shape[1], classes, dtype=torch.float64).normal_(0, 0.01, generator=generator)
        layer.weight.data.copy_(drawn.T)
        layer.bias.data.zero_()
        scaled = rate * settings.batch_size / 256
        optimizer = torch.optim.SGD(layer.parameters(), lr=scaled, momentum=settings.momentum)
        for epoch in range(settings.epochs):
            for group in optimizer.param_groups:
                group["lr"] = scaled * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
            for rows in torch.randperm(len(features), generator=generator).split(settings.batch_size):
                optimizer.zero_grad()
                functional.cross_entropy(layer(features[rows]), labels[rows]).backward()
                optimizer.step()
        found.append(layer.weight.detach().T)
    return torch.stack(found)


@dataclass(frozen=True)
class Case:
    """Sizes of a comparison."""

    images: int = 8000
    dim: int = 1536
    classes: int = 10
    epochs: int = 4
    with_pass: bool = False
    """Whether features come from a network's pass over images; then `dim` is its own."""


def deit_features(images: int) -> Callable[[], Tensor]:
    """A pass of deit_ti16 over noise of 64 px: (images, 768), what the probe reads."""
    torch.manual_seed(0)
    arch = registry.backbone("deit_ti16")
    network = arch(arch.fill(arch.Config(), 64, {}), image_px=64).eval()
    pixels = torch.randn(images, 3, 64, 64)

    @torch.no_grad()
    def extract() -> Tensor:
        return torch.cat([network.probe_features(some) for some in pixels.split(128)])

    return extract


def compare(case: Case, turns: int, goal: Goal) -> Ratio:
    """The ratio of times of the evaluator's grid of rates."""
    images, classes, epochs = case.images, case.classes, case.epochs
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (images,), generator=generator)
    if case.with_pass:
        extract = deit_features(images)
    else:
        centers = torch.randn(classes, case.dim, generator=generator)
        given = 0.1 * (torch.randn(images, case.dim, generator=generator) + centers[labels])
        extract = lambda: given  # noqa: E731
    config = LinearProbeConfig()
    settings = ProbeSettings(sorted(config.learning_rates), epochs, min(config.batch_size, images), config.momentum, 0)
    weights: dict[str, Tensor] = {}

    def together() -> None:
        features = extract()
        weights["ours"] = train_probes(features, labels, features[:500], labels[:500], classes, settings).weight

    def apart() -> None:
        weights["peer"] = one_by_one(extract, labels, classes, settings)

    pairs = by_turns(together, apart, turns)
    difference = (weights["ours"] - weights["peer"]).abs().amax(dim=(1, 2)) / weights["peer"].abs().amax(dim=(1, 2))
    assert float(difference.max()) < TOLERANCE, difference
    what = "images through deit_ti16" if case.with_pass else f"features of {case.dim:,} values"
    name = f"linear probe, {len(settings.rates)} rates, {images:,} {what}, {classes} classes, {epochs} epochs"
    peer = "one pass and training per rate" if case.with_pass else "one training per rate"
    return faster(name, peer, pairs, torch.get_num_threads(), goal)


def ratios(*, quick: bool = False) -> list[Ratio]:
    """With the network's pass over the images, and the training alone, on features of DeiT-S's last four blocks."""
    if quick:
        return [compare(Case(256, 64, 10, 1), 1, Goal())]
    return [compare(Case(512, with_pass=True), 3, Goal(at_least=10)), compare(Case(), 5, Goal())]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8000, help="default: %(default)s")
    parser.add_argument("--dim", type=int, default=1536, help="length of a feature vector (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--pass", action="store_true", dest="with_pass", help="with the network's pass over the images")
    parser.add_argument("--turns", type=int, default=3, help="interleaved repetitions (default: %(default)s)")
    given = parser.parse_args(arguments)
    row = compare(Case(given.images, given.dim, given.classes, given.epochs, given.with_pass), given.turns, Goal())
    print(
        f"{row.name}: {row.ratio:.2f} times as fast as {row.against} ({row.spread[0]:.2f} to {row.spread[1]:.2f}, n = "
        f"{row.n}); by CPU time {row.ratio_by_cpu_time:.2f}; {row.ours:.0f} and {row.peer:.0f} ms"
    )


if __name__ == "__main__":
    main()
