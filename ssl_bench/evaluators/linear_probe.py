"""Linear probe: a linear classifier on frozen features, many learning rates trained in one pass.

DINO (Caron et al. 2021, appendix F.2, and the authors' eval_linear.py): SGD with momentum 0.9, no weight decay, 100
epochs of cosine decay per epoch to 0, rate times batch / 256, weights from N(0, 0.01), biases 0. DINOv2 (Oquab et al.
2023, arXiv 2304.07193, section B.3) trains a grid of rates side by side; so do we, as columns of one weight matrix.

What differs, and why: features are extracted once, so training sees centre crops without augmentation. The rate is
chosen on a tenth of the *training* set that is held out, where DINO reports its best epoch on the validation set.
Classifiers are trained on the other nine tenths and not again on all. The test set is looked at once, at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import model_validator
from torch import Tensor

from ssl_bench.errors import UserError
from ssl_bench.evaluator import Evaluation, Evaluator, Features, Measurement
from ssl_bench.features import device_with_room
from ssl_bench.settings import Settings, setting


class LinearProbeConfig(Settings):
    """Settings of the linear probe."""

    learning_rates: tuple[float, ...] = setting(
        (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0),
        "grid of learning rates, each times batch / 256",
        source="DINOv2's 1e-5 to 0.1, moved up because small sets take fewer steps; DINO's 0.001 is in it",
        min_length=1,
    )
    epochs: int = setting(100, "passes over the training part", unit="epochs", source="DINO eval_linear.py", ge=1)
    batch_size: int = setting(256, "images a step", unit="images", source="the batch that DINO's rates refer to", ge=1)
    momentum: float = setting(0.9, "momentum of SGD", source="DINO eval_linear.py", ge=0, lt=1)
    held_out: float = setting(
        0.1, "part of each class of the training set on which rate and epoch are chosen", gt=0, lt=1
    )
    standardise: bool = setting(
        False, "give each feature mean 0 and deviation 1 on the training part first; DINO does not"
    )

    @model_validator(mode="after")
    def _sensible(self) -> LinearProbeConfig:
        if min(self.learning_rates) <= 0 or len(set(self.learning_rates)) < len(self.learning_rates):
            raise ValueError(f"learning_rates must be different numbers above 0, not {list(self.learning_rates)}")
        return self


class LinearProbe(Evaluator):
    """Linear classifier on frozen features (DINO's, with DINOv2's grid of learning rates in one pass)."""

    Config = LinearProbeConfig
    config: LinearProbeConfig

    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        """Test accuracy `top1_last`, the rate chosen after the last epoch (primary), and `top1_selected`, with epoch.

        Both are chosen by held-out accuracy. Raises `UserError` when no class has two training images, or when every
        rate diverges.
        """
        config, classes = self.config, len(evaluation.dataset.classes)
        train, test = evaluation.features("train", "probe_features"), evaluation.features("test", "probe_features")
        kept, held_out = hold_out(train.labels, config.held_out, evaluation.seed)
        mean, deviation = self._scale(train.vectors[kept])
        device = device_with_room(evaluation.backbone, 3 * train.vectors.nbytes + (1 << 30))

        def ready(features: Features, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
            return ((features.vectors[rows] - mean) / deviation).to(device), features.labels[rows].to(device)

        rates = sorted(config.learning_rates)
        probes = train_probes(
            *ready(train, kept), *ready(train, held_out), classes, rates,
            epochs=config.epochs, batch_size=config.batch_size, momentum=config.momentum, seed=evaluation.seed,
        )  # fmt: skip
        if probes.last is None or probes.selected is None:
            raise UserError(
                f"'linear-probe.learning_rates' = {rates}: every one diverged; give smaller ones or standardise = true"
            )
        diverged = [f"{rate:g}" for rate, fine in zip(rates, probes.finite, strict=True) if not fine]
        note = f"; diverged: {', '.join(diverged)}" if diverged else ""
        if len(rates) > 1 and probes.last.rate in (rates[0], rates[-1]):
            note += f"; the chosen rate {probes.last.rate:g} is at the end of the grid"
            evaluation.say(f"linear probe: the chosen rate {probes.last.rate:g} is at the end of the grid: widen it")
        queries, labels = ready(test, slice(None))
        return [
            Measurement(
                metric=metric,
                value=100 * float((probe.predict(queries) == labels).double().mean()),
                unit="%",
                higher_is_better=True,
                n=len(labels),
                protocol=f"{self._protocol(rates)}, {words}, {train.transform}",
                primary=metric == "top1_last",
                details=(
                    f"rate {probe.rate:g} after epoch {probe.epoch} of {config.epochs}, "
                    f"held-out {100 * probe.held_out_accuracy:.2f} % of {len(held_out)}{note}"
                ),
            )
            for metric, probe, words in (
                ("top1_last", probes.last, "rate chosen on held-out images, last epoch"),
                ("top1_selected", probes.selected, "rate and epoch chosen on held-out images"),
            )
        ]

    def _scale(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        if not self.config.standardise:
            return torch.zeros(1), torch.ones(1)
        return vectors.mean(dim=0), vectors.std(dim=0, correction=0).clamp_min(1e-6)

    def _protocol(self, rates: Sequence[float]) -> str:
        config = self.config
        return (
            f"linear probe, SGD {config.momentum:g}, {config.epochs} epochs cosine, batch {config.batch_size}, "
            f"no augmentation, {'standardised' if config.standardise else 'raw'} features, "
            f"trained on {100 * (1 - config.held_out):g} % of train, rates {' '.join(f'{rate:g}' for rate in rates)}"
        )


@dataclass(frozen=True)
class Probe:
    """One trained linear classifier and how it was found."""

    weight: Tensor
    """(dim, classes)."""
    bias: Tensor
    """(classes,)."""
    rate: float
    """As in the grid, before it is scaled by the batch."""
    epoch: int
    """After how many epochs."""
    held_out_accuracy: float

    def predict(self, features: Tensor) -> Tensor:
        """(n,) class of each of `features` (n, dim)."""
        return torch.addmm(self.bias, features, self.weight).argmax(dim=1)


@dataclass(frozen=True)
class Probes:
    """All classifiers after the last epoch, and the two that the held-out part chose (None: all diverged)."""

    weight: Tensor
    """(rates, dim, classes)."""
    bias: Tensor
    """(rates, classes)."""
    finite: tuple[bool, ...]
    """Whether the rate did not diverge."""
    last: Probe | None
    """Best rate after the last epoch."""
    selected: Probe | None
    """Best rate and epoch."""


def hold_out(labels: Tensor, part: float, seed: int) -> tuple[Tensor, Tensor]:
    """Sorted indices (kept, held out) of a split with `part` of each class held out, at least one of two images.

    Raises `UserError` when no class has two images.
    """
    generator = torch.Generator().manual_seed(seed)
    held = []
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero()[:, 0]
        count = min(len(members) - 1, max(1, round(part * len(members))))
        held.append(members[torch.randperm(len(members), generator=generator)[:count]])
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[torch.cat(held)] = True
    if not mask.any():
        raise UserError("the linear probe holds out a part of each class: it needs a class of at least 2 images")
    return (~mask).nonzero()[:, 0], mask.nonzero()[:, 0]


def train_probes(
    features: Tensor,
    labels: Tensor,
    held_out_features: Tensor,
    held_out_labels: Tensor,
    classes: int,
    rates: Sequence[float],
    *,
    epochs: int,
    batch_size: int,
    momentum: float,
    seed: int,
) -> Probes:
    """Train a classifier for each of `rates` on `features` (n, dim) with cross-entropy, all in one pass.

    The classifiers share initial weights and batches, and are columns (rates * classes) of one matrix, so that a step
    is two matrix products. None sees another: one that diverges stays alone. Among rates and epochs of equal held-out
    accuracy the lower held-out loss is chosen. In the type and on the device of `features`.
    """
    count, dim = features.shape
    batch_size = min(batch_size, count)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty(dim, classes, dtype=torch.float64).normal_(0, 0.01, generator=generator).to(features)
    weight = drawn.repeat(1, len(rates))
    bias = weight.new_zeros(len(rates) * classes)
    weight_velocity, bias_velocity = torch.zeros_like(weight), torch.zeros_like(bias)
    scaled = torch.tensor(rates, dtype=torch.float64).repeat_interleave(classes) * batch_size / 256
    batch, accuracy, loss = features.new_empty(batch_size, dim), torch.empty(0), torch.empty(0)
    selected: Probe | None = None
    selected_loss = math.inf

    def probe(rate: int, epoch: int) -> Probe:
        columns = slice(rate * classes, (rate + 1) * classes)
        return Probe(weight[:, columns].clone(), bias[columns].clone(), rates[rate], epoch, float(accuracy[rate]))

    for epoch in range(epochs):
        rate_now = (scaled * (1 + math.cos(math.pi * epoch / epochs)) / 2).to(features)
        order = torch.randperm(count, generator=generator).to(features.device)
        for low in range(0, count, batch_size):
            rows = order[low : low + batch_size]
            images = torch.index_select(features, 0, rows, out=batch[: len(rows)])
            gradient = _loss_gradient(torch.addmm(bias, images, weight), labels[rows], classes)
            weight_velocity.addmm_(images.T, gradient, beta=momentum)
            bias_velocity.mul_(momentum).add_(gradient.sum(dim=0))
            weight.addcmul_(weight_velocity, rate_now, value=-1)
            bias.addcmul_(bias_velocity, rate_now, value=-1)
        accuracy, loss = _score(weight, bias, held_out_features, held_out_labels, classes)
        best = _choose(accuracy, loss)
        if best is not None:
            before = (selected.held_out_accuracy, -selected_loss) if selected else (-1.0, 0.0)
            if (float(accuracy[best]), -float(loss[best])) > before:
                selected, selected_loss = probe(best, epoch + 1), float(loss[best])
    best = _choose(accuracy, loss)
    return Probes(
        weight.view(dim, len(rates), classes).transpose(0, 1).contiguous(),
        bias.view(len(rates), classes),
        tuple(torch.isfinite(loss).tolist()),
        None if best is None else probe(best, epochs),
        selected,
    )


def _loss_gradient(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Gradient of the mean cross-entropy by `logits` (batch, rates * classes), for each rate on its own."""
    gradient = logits.view(len(labels), -1, classes).softmax(dim=2)
    gradient[torch.arange(len(labels), device=labels.device), :, labels] -= 1
    return gradient.div_(len(labels)).view(len(labels), -1)


def _score(weight: Tensor, bias: Tensor, features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Accuracy and mean cross-entropy (rates,) float64 on the CPU; the loss of a rate that diverged is not finite."""
    rates = len(bias) // classes
    hits = torch.zeros(rates, dtype=torch.float64, device=features.device)
    total = torch.zeros_like(hits)
    for low in range(0, len(labels), 4096):
        part, target = features[low : low + 4096], labels[low : low + 4096]
        logits = torch.addmm(bias, part, weight).view(len(target), rates, classes)
        hits += (logits.argmax(dim=2) == target[:, None]).double().sum(dim=0)
        chosen = logits[torch.arange(len(target), device=target.device), :, target]
        total += (logits.logsumexp(dim=2) - chosen).double().sum(dim=0)
    return (hits / len(labels)).cpu(), (total / len(labels)).cpu()


def _choose(accuracy: Tensor, loss: Tensor) -> int | None:
    """The rate of best accuracy, then lowest loss, then lowest index, among those whose loss is finite."""
    fine = torch.isfinite(loss).nonzero()[:, 0].tolist()
    return min(fine, key=lambda rate: (-float(accuracy[rate]), float(loss[rate]), rate), default=None)
