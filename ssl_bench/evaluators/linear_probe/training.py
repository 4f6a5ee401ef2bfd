"""Linear classifiers trained side by side: learning rates, and folds of a cross-validation, are rows of one matrix.

Of the layouts, classifiers as rows and images as columns of the logits make the fastest matrix products on a CPU.
`linear_probe` says what they are for and where their settings come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_bench.errors import UserError

SCORED_EPOCHS = 100
"""At how many epochs, evenly chosen and with the last one, held-out images are looked at."""


@dataclass(frozen=True)
class ProbeSettings:
    """How every classifier is trained."""

    rates: Sequence[float]
    """Learning rates, each times batch / 256."""
    epochs: int
    batch_size: int
    momentum: float
    seed: int


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
    """All classifiers after the last epoch, and the two that held-out images chose (None: all diverged)."""

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
    """Sorted indices (kept, held out) of a split with `part` of it held out, class by class.

    Rounding is carried from class to class, so that many small classes lose no more than `part` together. Every class
    keeps an image. Raises `UserError` when no class has two images.
    """
    generator = torch.Generator().manual_seed(seed)
    held, owed = [], 0.0
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero()[:, 0]
        owed += part * len(members)
        count = max(0, min(len(members) - 1, round(owed)))
        owed -= count
        held.append(members[torch.randperm(len(members), generator=generator)[:count]])
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[torch.cat(held)] = True
    if not mask.any():  # fewer images than 1 / part: one of the largest class
        mask[_largest_class(labels)[0]] = True
    return (~mask).nonzero()[:, 0], mask.nonzero()[:, 0]


def draw_folds(labels: Tensor, folds: int, seed: int) -> Tensor:
    """(n,) the fold that holds out each image, 0 to `folds` - 1, class by class; -1 for the only image of a class.

    Raises `UserError` when no class has two images.
    """
    _largest_class(labels)
    generator = torch.Generator().manual_seed(seed)
    fold, dealt = torch.full((len(labels),), -1), 0
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero()[:, 0]
        if len(members) > 1:
            shuffled = members[torch.randperm(len(members), generator=generator)]
            fold[shuffled] = torch.arange(dealt, dealt + len(members)) % folds
            dealt += len(members)
    return fold


def train_probes(
    features: Tensor,
    labels: Tensor,
    held_out_features: Tensor,
    held_out_labels: Tensor,
    classes: int,
    settings: ProbeSettings,
) -> Probes:
    """Train a classifier for each rate on `features` (n, dim) with cross-entropy, all in one pass.

    The classifiers share initial weights and batches. None sees another: one that diverges stays alone. Among rates
    and epochs of equal held-out accuracy the lower held-out loss is chosen. Type and device are those of `features`.
    """
    choice = _Choice(settings)
    for epoch, weight, bias in _scored(_epochs(features, labels, classes, settings, None), settings.epochs):
        hits, loss = _score(weight, bias, held_out_features, held_out_labels, classes)
        choice.look(hits / len(held_out_labels), loss / len(held_out_labels), epoch, weight, bias)
    return choice.probes(weight, bias, classes)


def cross_validate(features: Tensor, labels: Tensor, fold: Tensor, classes: int, settings: ProbeSettings) -> Probes:
    """As `train_probes`, trained on all `features` (n, dim), the rate chosen by cross-validation over `fold` (n,).

    For each fold a further classifier of each rate is trained in the same pass without the images of that fold, and
    asked for those. `held_out_accuracy` is over all images that are in a fold; -1 in `fold` is in none.
    """
    folds = int(fold.max()) + 1
    trained_on = fold[:, None] != torch.arange(folds + 1, device=fold.device)  # (n, folds + 1); the last one sees all
    grid = len(settings.rates) * classes
    choice, asked = _Choice(settings), int((fold >= 0).sum())
    states = _epochs(features, labels, classes, settings, trained_on.to(features))
    for epoch, weights, biases in _scored(states, settings.epochs):
        hits = loss = torch.zeros(len(settings.rates), dtype=torch.float64)
        for index in range(folds):
            part, rows = slice(index * grid, (index + 1) * grid), fold == index
            more_hits, more_loss = _score(weights[part], biases[part], features[rows], labels[rows], classes)
            hits, loss = hits + more_hits, loss + more_loss
        weight, bias = weights[-grid:], biases[-grid:]
        finite = torch.isfinite(weight).view(len(settings.rates), -1).all(dim=1).cpu()
        loss = torch.where(finite, loss, math.inf)
        choice.look(hits / asked, loss / asked, epoch, weight, bias)
    return choice.probes(weight, bias, classes)


def _largest_class(labels: Tensor) -> Tensor:
    """Indices of the images of the largest class. Raises `UserError` when that has one image only."""
    counts = torch.bincount(labels)
    if int(counts.max()) < 2:
        raise UserError("the linear probe holds out a part of each class: it needs a class of at least 2 images")
    return (labels == counts.argmax()).nonzero()[:, 0]


def _epochs(
    features: Tensor, labels: Tensor, classes: int, settings: ProbeSettings, trained_on: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights (groups * rates * classes, dim) and biases after each epoch, updated in place.

    `trained_on` (n, groups), of ones and zeros, says which images each group of classifiers sees; None is one group
    that sees all.
    """
    count, dim = features.shape
    rates, epochs, momentum = settings.rates, settings.epochs, settings.momentum
    batch_size, groups = min(settings.batch_size, count), 1 if trained_on is None else trained_on.shape[1]
    generator = torch.Generator().manual_seed(settings.seed)
    drawn = torch.empty(dim, classes, dtype=torch.float64).normal_(0, 0.01, generator=generator).to(features)
    weight = drawn.T.repeat(groups * len(rates), 1)
    bias = weight.new_zeros(len(weight))
    weight_velocity, bias_velocity = torch.zeros_like(weight), torch.zeros_like(bias)
    scaled = torch.tensor(rates, dtype=torch.float64).repeat_interleave(classes).repeat(groups) * batch_size / 256
    batch = features.new_empty(batch_size, dim)
    for epoch in range(epochs):
        rate_now = (scaled * (1 + math.cos(math.pi * epoch / epochs)) / 2).to(features)
        order = torch.randperm(count, generator=generator).to(features.device)
        for low in range(0, count, batch_size):
            rows = order[low : low + batch_size]
            images = torch.index_select(features, 0, rows, out=batch[: len(rows)])
            seen = None if trained_on is None else trained_on[rows]
            gradient = _loss_gradient(_logits(weight, bias, images, classes), labels[rows], seen)
            weight_velocity.addmm_(gradient, images, beta=momentum)
            bias_velocity.mul_(momentum).add_(gradient.sum(dim=1))
            weight.addcmul_(weight_velocity, rate_now[:, None], value=-1)
            bias.addcmul_(bias_velocity, rate_now, value=-1)
        yield weight, bias


def _logits(weight: Tensor, bias: Tensor, images: Tensor, classes: int) -> Tensor:
    """(classifiers, classes, batch) of `images` (batch, dim), for `weight` (classifiers * classes, dim)."""
    return torch.addmm(bias[:, None], weight, images.T).view(-1, classes, len(images))


def _loss_gradient(logits: Tensor, labels: Tensor, seen: Tensor | None) -> Tensor:
    """Gradient of the mean cross-entropy by `logits` (groups * rates, classes, batch), for each rate on its own.

    (groups * rates * classes, batch). `seen` (batch, groups) weighs the images; None is one each.
    """
    gradient = logits.softmax(dim=1)
    gradient[:, labels, torch.arange(len(labels), device=labels.device)] -= 1
    if seen is None:
        return gradient.div_(len(labels)).view(-1, len(labels))
    shares = (seen / seen.sum(dim=0).clamp_min(1)).T
    return gradient.view(len(shares), -1, len(labels)).mul_(shares[:, None]).view(-1, len(labels))


def _scored(states: Iterator[tuple[Tensor, Tensor]], epochs: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(epoch from 1 on, weights, biases) of at most `SCORED_EPOCHS` epochs, the last one among them."""
    every = math.ceil(epochs / SCORED_EPOCHS)
    for epoch, (weight, bias) in enumerate(states, start=1):
        if (epochs - epoch) % every == 0:
            yield epoch, weight, bias


class _Choice:
    """The best rate of the last epoch looked at, and the best of all epochs."""

    def __init__(self, settings: ProbeSettings) -> None:
        self.rates = settings.rates
        self.last: Probe | None = None
        self.selected: Probe | None = None
        self._selected_loss = math.inf
        self._finite: tuple[bool, ...] = ()

    def look(self, accuracy: Tensor, loss: Tensor, epoch: int, weight: Tensor, bias: Tensor) -> None:
        """Take in held-out accuracy and loss (rates,) of the classifiers after an epoch."""
        self._finite = tuple(torch.isfinite(loss).tolist())
        best = _best(accuracy, loss)
        self.last = None
        if best is None:
            return
        classes = len(bias) // len(self.rates)
        rows = slice(best * classes, (best + 1) * classes)
        self.last = Probe(weight[rows].T.clone(), bias[rows].clone(), self.rates[best], epoch, float(accuracy[best]))
        before = (self.selected.held_out_accuracy, -self._selected_loss) if self.selected else (-1.0, 0.0)
        if (float(accuracy[best]), -float(loss[best])) > before:
            self.selected, self._selected_loss = self.last, float(loss[best])

    def probes(self, weight: Tensor, bias: Tensor, classes: int) -> Probes:
        """What was found, with all classifiers as they are now."""
        apart = weight.view(-1, classes, weight.shape[1]).transpose(1, 2).contiguous()
        return Probes(apart, bias.view(-1, classes).clone(), self._finite, self.last, self.selected)


def _score(weight: Tensor, bias: Tensor, features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Hits and summed cross-entropy (rates,) float64 on the CPU; the loss of a rate that diverged is not finite."""
    rates = len(bias) // classes
    hits = torch.zeros(rates, dtype=torch.float64, device=features.device)
    total = torch.zeros_like(hits)
    for low in range(0, len(labels), 4096):
        part, target = features[low : low + 4096], labels[low : low + 4096]
        logits = _logits(weight, bias, part, classes)
        hits += (logits.argmax(dim=1) == target).double().sum(dim=1)
        chosen = logits[:, target, torch.arange(len(target), device=target.device)]
        total += (logits.logsumexp(dim=1) - chosen).double().sum(dim=1)
    return hits.cpu(), total.cpu()


def _best(accuracy: Tensor, loss: Tensor) -> int | None:
    """The rate of best accuracy, then lowest loss, then lowest index, among those whose loss is finite."""
    fine = torch.isfinite(loss).nonzero()[:, 0].tolist()
    return min(fine, key=lambda rate: (-float(accuracy[rate]), float(loss[rate]), rate), default=None)
