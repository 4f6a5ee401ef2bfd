"""Whether a run is still learning: signs of a collapse while it trains, and what to change.

A sign is a set of logged values that stay within a small tolerance of those of a collapse at every step. A method that
still learns is noisy and leaves them again, so a sign counts only if it lasts, and only after the warm-up. For every
method the doctor logs two values of the evaluated network's features: their spread, which is a sign when it vanishes,
and their effective rank, which is only shown (a healthy network has a low one where there are few classes). All other
signs are the method's own (`Method.signs`). Probing changes no state and draws no random number: the run stays bitwise
the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ssl_bench.backbone import Backbone, eval_mode
from ssl_bench.blocks.collapse_signs import entropy, spread
from ssl_bench.method import Method, Sign, evaluated_network

PROBED_IMAGES = 64
"""Images of a batch that a probe uses at most; it then costs about a tenth of a step."""
LEAST_IMAGES = 2
"""One image has no spread."""
PATIENCE_STEPS = (50, 1000)
"""A sign must last for a twentieth of the run, between these bounds."""
PROBES_WITHIN_PATIENCE = 3
"""Number of probes that show a sign in the features before it ends a run; they take 1 % of the time of a short run."""
LEAST_STEPS_FROM_START = 500
"""A sign that is present from the first step on must last for half of the run, and for at least so many steps."""
FEATURES_ALIKE = Sign(
    {"feature_spread": (0.0, 1e-3)},
    "the evaluated network gives the same features for every image",
    "a lower rate (--set optimizer.base_lr=...), or what the method has against collapse (sslbench run METHOD --help)",
)
DIVERGED = (
    "Likely causes: a learning rate that is too high (--set optimizer.base_lr=...) or too little precision "
    "(--set training.precision=fp32)."
)


class RunFailed(Exception):
    """The run ends: its loss or its weights are not finite ("failed"), or a sign has lasted ("collapsed")."""

    def __init__(self, message: str, status: Literal["failed", "collapsed"] = "failed") -> None:
        super().__init__(message)
        self.status = status


def effective_rank(features: Tensor) -> Tensor:
    """(batch, dim) -> (): exp of the entropy of the singular values over their sum, between 1 and min(batch, dim).

    RankMe (Garrido et al. 2023, arXiv 2210.02885, equations 1 and 2; without its epsilon, since 0 log 0 is 0 here).
    """
    values = torch.linalg.svdvals(features)
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return entropy(shares).exp()


def probe(backbone: Backbone, images: Tensor, step: int, at_once: int = PROBED_IMAGES) -> dict[str, float]:
    """Spread and effective rank of features of (batch, 3, height, width), in eval mode and fp32; modes are restored.

    A forward pass has `at_once` images at most. Raises `RunFailed` for features that are not finite.
    """
    device = next(backbone.parameters()).device
    with eval_mode(backbone), torch.no_grad(), torch.autocast(device.type, enabled=False):
        parts = torch.split(images[:PROBED_IMAGES], at_once)
        features = torch.cat([backbone(part.to(device)).cpu() for part in parts]).double()
    if not bool(torch.isfinite(features).all()):
        raise RunFailed(f"the features of the evaluated network are not finite after step {step}. {DIVERGED}")
    return {"feature_spread": float(spread(features)), "effective_rank": float(effective_rank(features))}


@dataclass(frozen=True)
class Doctor:
    """When to probe, and how long a sign must last before the run ends as collapsed."""

    signs: Sequence[Sign]
    first_step: int
    """No sign counts before it: at the start losses near ln K are healthy."""
    patience: int
    """Consecutive steps for which a sign must be present."""
    patience_from_start: int
    """The same for a sign that is present from the first step on: the method may still begin to learn."""

    @classmethod
    def of(cls, method: Method, batch_size: int, total_steps: int, warmup_steps: int) -> Doctor:
        """The doctor of a run. Signs count from `patience` steps after the warm-up on."""
        least, most = PATIENCE_STEPS
        patience = min(most, max(least, total_steps // 20))
        from_start = max(LEAST_STEPS_FROM_START, total_steps // 2)
        return cls((*method.signs(batch_size), FEATURES_ALIKE), warmup_steps + patience, patience, from_start)

    def probes_at(self, step: int) -> bool:
        """Whether the features are probed after `step` steps."""
        return step == 1 or step % max(1, self.patience // PROBES_WITHIN_PATIENCE) == 0

    def probe(self, method: Method, images: Tensor, step: int, at_once: int) -> dict[str, float]:
        """The values logged about the features; none for views that are not images and for a batch of one."""
        if images.ndim != 4 or len(images) < LEAST_IMAGES:
            return {}
        return probe(evaluated_network(method), images, step, at_once)

    def suspects(self, step: int, lasting: Mapping[str, int]) -> bool:
        """Whether a sign, counted in `lasting`, is present after `step` steps."""
        return step > self.first_step and bool(lasting)

    def look(self, step: int, values: Mapping[str, float], lasting: dict[str, int]) -> str:
        """Count in `lasting`, by its cause, for how many steps each sign has been present; returns a warning, or "".

        `values` were logged last, after `step` steps. Raises `RunFailed` when a sign has lasted too long.
        """
        present = [sign for sign in self.signs if is_present(sign, values)]
        counts = {sign.cause: lasting.get(sign.cause, 0) + 1 for sign in present}
        lasting.clear()
        lasting.update(counts)
        left = min((self._left(step, count) for count in counts.values()), default=self.patience)
        words = "; ".join(
            f"{_shown(sign, values)} for {counts[sign.cause]} steps: {sign.cause}. To change: {sign.change}"
            for sign in present
        )
        if left <= 0:
            raise RunFailed(f"signs of a collapse up to step {step}: {words}.", "collapsed")
        return f"signs of a collapse: {words}. The run ends in {left} steps" if left == self.patience // 2 else ""

    def _left(self, step: int, count: int) -> int:
        """Steps until a sign that has been present for `count` steps ends the run."""
        patience = self.patience if count < step else self.patience_from_start
        return patience - max(0, min(count, step - self.first_step))


def refuse_nan(method: Method, step: int) -> None:
    """Raises `RunFailed` if a weight or a buffer contains NaN, so that it never enters a checkpoint."""
    for name, tensor in method.state_dict().items():
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise RunFailed(f"{name} contains NaN after step {step}, though the loss was finite. {DIVERGED}")


def is_present(sign: Sign, values: Mapping[str, float]) -> bool:
    """Whether every value of the sign is logged and within its tolerance."""
    return all(
        name in values and abs(values[name] - value) <= tolerance for name, (value, tolerance) in sign.near.items()
    )


def _shown(sign: Sign, values: Mapping[str, float]) -> str:
    """E.g. "kl 0.0003 (within 0.03 of 0)"."""
    return " and ".join(
        f"{name} {values[name]:.4g} (within {tolerance:.2g} of {value:.4g})"
        for name, (value, tolerance) in sign.near.items()
    )
