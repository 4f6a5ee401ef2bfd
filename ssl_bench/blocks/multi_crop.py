"""Multi-crop (SwAV, Caron et al. 2020, arXiv 2006.09882): the forward pass over several sizes, means over pairs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn


def features_of_views(backbone: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Views of (batch, 3, height, width) -> (views * batch, dim), view by view.

    Consecutive views of one size go through `backbone` as one batch.
    """
    sizes = [torch.cat(list(group)) for _, group in groupby(views, key=lambda view: view.shape[-2:])]
    return torch.cat([backbone(images) for images in sizes])


def mean_over_pairs(targets: Tensor, predictions: Tensor) -> Tensor:
    """Mean inner product <t_i, p_j> over pairs of different views i != j and the batch.

    `targets` (T, batch, K) are of the first T of the V views of `predictions` (V, batch, K). Computed as
    <t_i, sum_j p_j - p_i>, so that no tensor of size (pairs, batch, K) is made.
    """
    others = predictions.sum(dim=0) - predictions[: len(targets)]
    return (targets * others).sum() / (len(targets) * (len(predictions) - 1) * targets.shape[1])
