"""Parts of projection heads: the MLP, and the linear layer with normalized rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


def mlp(widths: Sequence[int], *, activation: type[nn.Module] = nn.ReLU, batch_norm: bool = False) -> nn.Sequential:
    """Linear layers from `widths[0]` to `widths[-1]`, with batch norm (if asked for) and activation in between.

    Weights start from a truncated normal of 0.02, biases at 0, as in DINO's vision_transformer.py.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        if layers:
            layers += [nn.BatchNorm1d(before), activation()] if batch_norm else [activation()]
        linear = nn.Linear(before, after)
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        layers.append(linear)
    return nn.Sequential(*layers)


class NormalizedLinear(nn.Module):
    """Linear layer without bias whose rows have length 1, or a learned gain (Salimans and Kingma 2016, 1602.07868).

    The scores are divided by the rows' lengths, instead of the rows: the same, for a fraction of the memory traffic
    where there are many rows and few samples.
    """

    def __init__(self, in_dim: int, out_dim: int, *, learn_gain: bool = False) -> None:
        super().__init__()
        self.rows = nn.Parameter(nn.Linear(in_dim, out_dim, bias=False).weight.detach())
        self.gain = nn.Parameter(torch.ones(out_dim, 1)) if learn_gain else None

    def forward(self, features: Tensor) -> Tensor:
        """(batch, in_dim) -> (batch, out_dim)."""
        scale = torch.linalg.vector_norm(self.rows, dim=1).reciprocal()
        if self.gain is not None:
            scale = scale * self.gain[:, 0]
        scores: Tensor = functional.linear(features, self.rows) * scale
        return scores
