"""Signs of a collapse: values that logs take when a method no longer tells images apart, for the collapse doctor.

A collapse gives such a value exactly; a method that still learns is noisy and does not keep it for long.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ssl_bench.method import Near, Sign

NO_SPREAD: Near = (0.0, 0.1)
"""Of `spread`, where cosines are above 0.99 on average; 0.7 and more in healthy runs of BYOL."""
NO_DIVERGENCE: Near = (0.0, 0.03)
"""KL in nats; 0.6 and more in healthy runs of DINO."""
ONE_USED: Near = (1.0, 0.2)
"""exp of the entropy of how often each of K choices is taken: K where all are used alike."""


def uniform(choices: int, tolerance: float = 0.01) -> Near:
    """ln K, in nats: entropy and cross-entropy of K = `choices` equal probabilities; `tolerance` is relative to it."""
    return math.log(choices), tolerance * math.log(choices)


def spread(vectors: Tensor) -> Tensor:
    """(batch, dim) -> (): standard deviation over the batch of l2-normalized vectors, averaged, times sqrt(dim).

    About 1 where directions are isotropic, less where vectors share a mean, 0 where all are alike (Chen and He 2020,
    arXiv 2011.10566, section 4.1: "std of the l2-normalized output", there compared with 1 / sqrt(dim)).
    """
    deviations: Tensor = functional.normalize(vectors, dim=-1).std(dim=0)
    return deviations.mean() * math.sqrt(vectors.shape[-1])


def entropy(probabilities: Tensor) -> Tensor:
    """Mean over the leading dimensions of h(P) = -sum P log P, in nats, of (..., K)."""
    return torch.special.entr(probabilities).sum(dim=-1).mean()  # type: ignore[no-any-return]


def distillation_signs(scores: int, center: str, sharpen: str) -> list[Sign]:
    """The two collapses of a teacher with K = `scores` (DINO, arXiv 2104.14294, section 5.3 and figure 7).

    Read from the logs `scores_used`, `teacher_entropy` and `kl`: without centering one score wins, without sharpening
    all are equal and there is nothing left to predict. `center` and `sharpen` are the advice against each.
    """
    one = Sign({"scores_used": ONE_USED}, "one score wins for every image, as without centering", center)
    flat = {"teacher_entropy": uniform(scores), "kl": NO_DIVERGENCE}
    return [one, Sign(flat, "all scores are equal, as without sharpening", sharpen)]
