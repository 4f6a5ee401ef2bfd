"""Linear probe: a linear classifier on frozen features, many learning rates trained in one pass.

DINO (Caron et al. 2021, appendix F.2, and the authors' eval_linear.py): SGD with momentum 0.9, no weight decay, 100
epochs of cosine decay per epoch to 0, rate times batch / 256, weights from N(0, 0.01), biases 0. DINOv2 (Oquab et al.
2023, arXiv 2304.07193, section B.3) trains a grid of rates side by side; so do we, as columns of one weight matrix.

What differs, and why: features are extracted once, so training sees center crops without augmentation. The rate is
chosen on a tenth of the *training* set that is held out, where DINO reports its best epoch on the validation set.
Classifiers are trained on the other nine tenths and not again on all. The test set is looked at once, at the end.

Small training sets: 100 epochs of 244 images are 100 steps, too few to learn anything, so `min_steps` adds epochs (none
from 2,560 images on). A tenth of 244 images cannot tell rates apart, so below `cross_validate_below` images the rate is
chosen by cross-validation over five folds and the classifier is trained on all images. Which of the two is a matter of
the data alone, never of the network: `evaluators.linear-probe.cross_validate_below=0` is always the held-out part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import model_validator
from torch import Tensor

from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import device_with_room
from ssl_bench.evaluator import Evaluation, Evaluator, Features, Measurement, Protocol
from ssl_bench.evaluators.linear_probe.training import (
    Probes,
    ProbeSettings,
    cross_validate,
    draw_folds,
    hold_out,
    train_probes,
)
from ssl_bench.measurement import NO_PROTOCOL, accuracy_of
from ssl_bench.settings import Settings, setting

FOLDS = 5
"""Of the cross-validation on small training sets."""
IMAGES_A_CLASS = 10
"""Fewer in the mean, and five folds would hold out one image of a class at a time: no cross-validation."""


class LinearProbeConfig(Settings):
    """Settings of the linear probe."""

    learning_rates: tuple[float, ...] = setting(
        (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0),
        "grid of learning rates, each times batch / 256",
        source="DINOv2's 1e-5 to 0.1, moved up because small sets take fewer steps; DINO's 0.001 is in it",
        min_length=1,
    )
    epochs: int = setting(100, "passes over the training part", unit="epochs", source="DINO eval_linear.py", ge=1)
    min_steps: int = setting(
        1000, "fewest optimizer steps; small training sets get more epochs to reach it", unit="steps", ge=1
    )
    batch_size: int = setting(256, "images a step", unit="images", source="the batch that DINO's rates refer to", ge=1)
    momentum: float = setting(0.9, "momentum of SGD", source="DINO eval_linear.py", ge=0, lt=1)
    held_out: float = setting(
        0.1, "part of each class of the training set on which rate and epoch are chosen", gt=0, lt=1
    )
    cross_validate_below: int = setting(
        2000, "with fewer training images, rate and epoch are chosen by 5-fold cross-validation", unit="images", ge=0
    )
    standardize: bool = setting(
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
    reads_images = False
    feature_kinds = frozenset({"probe_features"})
    config: LinearProbeConfig

    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        """Test accuracy `top1_last`, the rate chosen after the last epoch (primary), and `top1_selected`, with epoch.

        Both are chosen by held-out accuracy. Raises `UserError` when no class has two training images, or when every
        rate diverges.
        """
        config, classes = self.config, len(evaluation.dataset.classes)
        train, test = evaluation.features("train", "probe_features"), evaluation.features("test", "probe_features")
        crossed = len(train.labels) < config.cross_validate_below and len(train.labels) >= IMAGES_A_CLASS * classes
        everything = torch.arange(len(train.labels))
        kept, held_out = (everything,) * 2 if crossed else hold_out(train.labels, config.held_out, evaluation.seed)
        mean, deviation = self._scale(train.vectors[kept])
        device = device_with_room(evaluation.backbone, 3 * train.vectors.nbytes + (1 << 30))

        def ready(features: Features, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
            return ((features.vectors[rows] - mean) / deviation).to(device), features.labels[rows].to(device)

        settings = self._training(len(kept), evaluation.seed)
        if crossed:
            folds = draw_folds(train.labels, FOLDS, evaluation.seed).to(device)
            probes = cross_validate(*ready(train, kept), folds, classes, settings)
            asked = int((folds >= 0).sum())
        else:
            probes = train_probes(*ready(train, kept), *ready(train, held_out), classes, settings)
            asked = len(held_out)
        if probes.last is None or probes.selected is None:
            raise UserError(
                f"'linear-probe.learning_rates' = {list(settings.rates)}: every one diverged; give smaller ones or "
                "standardize = true"
            )
        note = self._note(probes, settings.rates, evaluation)
        queries, labels = ready(test, slice(None))
        training = self._training_protocol(settings, len(kept) / len(train.labels))
        by = f"by {FOLDS}-fold cross-validation" if crossed else "on held-out images"
        return [
            accuracy_of(
                metric,
                (probe.predict(queries) == labels).cpu(),
                protocol=Protocol.of(
                    "linear probe, {training}, {chosen}, {transform}",
                    training=training,
                    chosen=chosen,
                    transform=train.transform,
                ),
                primary=metric == "top1_last",
                details=(
                    f"rate {probe.rate:g} after epoch {probe.epoch} of {settings.epochs}, held-out "
                    f"{100 * probe.held_out_accuracy:.2f} % of {asked}, trained on {len(kept):,} of "
                    f"{len(train.labels):,} images; read: {evaluation.backbone.probe_reads}{note}"
                ),
            )
            for metric, probe, chosen in (
                ("top1_last", probes.last, f"rate chosen {by}, last epoch"),
                ("top1_selected", probes.selected, f"rate and epoch chosen {by}"),
            )
        ]

    def _training(self, images: int, seed: int) -> ProbeSettings:
        config = self.config
        epochs = max(config.epochs, math.ceil(config.min_steps / math.ceil(images / config.batch_size)))
        return ProbeSettings(sorted(config.learning_rates), epochs, config.batch_size, config.momentum, seed)

    def _note(self, probes: Probes, rates: Sequence[float], evaluation: Evaluation) -> str:
        """What went wrong with rates, for the details; a grid that is too narrow is also said."""
        assert probes.last is not None
        diverged = [f"{rate:g}" for rate, fine in zip(rates, probes.finite, strict=True) if not fine]
        note = f"; diverged: {', '.join(diverged)}" if diverged else ""
        if len(rates) > 1 and probes.last.rate in (rates[0], rates[-1]):
            note += f"; the chosen rate {probes.last.rate:g} is at the end of the grid"
            evaluation.say(f"linear probe: the chosen rate {probes.last.rate:g} is at the end of the grid: widen it")
        return note

    def _scale(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        if not self.config.standardize:
            return torch.zeros(1), torch.ones(1)
        return vectors.mean(dim=0), vectors.std(dim=0, correction=0).clamp_min(1e-6)

    def _training_protocol(self, settings: ProbeSettings, trained_share: float) -> Protocol:
        config, at_least = self.config, NO_PROTOCOL
        if settings.epochs > config.epochs:
            at_least = Protocol.of(" (at least {min_steps:,} steps)", min_steps=config.min_steps)
        return Protocol.of(
            "SGD {momentum}, {epochs} epochs {schedule}{at_least}, batch {batch_size}, {augmentation}, {scale} "
            "features, trained on {trained_percent} % of train, rates {rates}",
            momentum=config.momentum,
            epochs=settings.epochs,
            schedule="cosine",
            at_least=at_least,
            batch_size=config.batch_size,
            augmentation="no augmentation",
            scale="standardized" if config.standardize else "raw",
            trained_percent=float(f"{100 * trained_share:.3g}"),
            rates=tuple(settings.rates),
        )
