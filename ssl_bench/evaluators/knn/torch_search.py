"""Exact nearest neighbours by inner product in torch: cheap products propose, float64 decides.

Neighbours are ordered by their inner product in float64, ties by index. float32 or bfloat16 products only *propose*
candidates, with a bound on their error that is computed from the data; every candidate within the bound is scored
again in float64, so nothing is missed whatever the data. With q a query, b_j a row of the bank, m any vector (here the
bank's mean), q^ and c_j the rounded q and b_j - m,

    |<q, b_j - m> - <q^, c_j>|  <=  |q| |b_j - m - c_j|  +  |q - q^| |c_j|  +  gamma |q^| |c_j|     (Cauchy-Schwarz)

where gamma = D u / (1 - D u) bounds the rounding of a sum of D products (Higham 2002, Accuracy and Stability of
Numerical Algorithms, section 3.1; u is taken as twice the unit roundoff of float32). <q, m> is the same for all j and
leaves the order alone, so taking the mean away costs nothing and shrinks the error where features crowd together.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SCORE_BYTES = 256 << 20
"""Memory for the products of one block of queries with the whole bank."""
GROUP = 32
"""Columns that share one maximum: the products are looked through at 1/32 of their number."""
PIECE = 1 << 18
"""Groups looked into at once when near-ties make many of them candidates."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of the bank, best first: `indices` (queries, k) int64, `similarities` (queries, k) float64."""

    indices: Tensor
    similarities: Tensor
    searched_by: str
    """Library, precision of the products and version, e.g. "torch 2.14.1 (bfloat16 products, float64 scores)"."""


class Sketch:
    """The bank minus its mean in a cheap type, with the norms that bound the error of products with it."""

    def __init__(self, bank: Tensor, dtype: torch.dtype) -> None:
        self.dtype, self.mean = dtype, bank.mean(dim=0)
        self.rows = torch.empty_like(bank, dtype=dtype)
        self.residual = self.norm = 0.0  # at least max |b_j - m - c_j| and max |c_j|
        for low in range(0, len(bank), 1024):  # few rows at once stay in the cache
            exact, row = bank[low : low + 1024] - self.mean, self.rows[low : low + 1024]
            row.copy_(exact)
            self.norm = max(self.norm, float(exact.norm(dim=1).max()))
            self.residual = max(self.residual, float(exact.sub_(row).norm(dim=1).max()))
        self.norm += self.residual
        self.residual += 2.0**-23 * self.norm  # the subtraction of the mean was rounded too

    def error(self, queries: Tensor) -> Tensor:
        """(m,) float64: bound on |<q, b - m> - <q^, c>| as computed, before the result is rounded to `dtype`."""
        dim, exact, rounded = queries.shape[1], queries.double(), queries.to(self.dtype).double()
        gamma = dim * 2.0**-23 / (1 - dim * 2.0**-23)
        dropped = (exact - rounded).norm(dim=1) + gamma * rounded.norm(dim=1)
        # 1.001 covers the rounding of the norms, the last term products that are flushed to zero
        bound: Tensor = 1.001 * (exact.norm(dim=1) * self.residual + dropped * self.norm) + 1e-30 * dim
        return bound


class TorchSearch:
    """`TorchSearch(bank)(queries, k)`: the k rows of `bank` (n, dim) nearest to each of `queries` (m, dim).

    On the bank's device. `dtype` is that of the proposing products: float32 or bfloat16, by default whichever is the
    faster here. The answer does not depend on it.
    """

    def __init__(self, bank: Tensor, dtype: torch.dtype | None = None) -> None:
        # A GPU may add bfloat16 products up in less than float32, which the bound does not cover
        dtype = dtype or (torch.bfloat16 if bank.device.type == "cpu" and _bfloat16_pays() else torch.float32)
        self.bank, self.sketch, self.dtypes = bank, Sketch(bank, dtype), [dtype]

    def __call__(self, queries: Tensor, k: int) -> Neighbours:
        """`queries` (m, dim) float32 on the bank's device, 1 <= k <= n; the result is on the CPU."""
        bank, found, start = self.bank, [], 0
        memory = self._memory(len(queries), k)
        with _full_precision():
            while start < len(queries):
                some = queries[start : start + len(memory)]
                scores = memory[: len(some)]
                best, cut = _propose(some, self.sketch, k, scores)
                candidates = (best >= cut[:, None]).sum(dim=1)
                # A query's float32 products with the bank cost about as much as scoring 1 in 100 of its rows again
                if self.sketch.dtype != torch.float32 and float(candidates.sum()) > len(some) * (
                    2 * k + len(bank) / 200
                ):
                    self.sketch = Sketch(bank, torch.float32)
                    self.dtypes.append(torch.float32)
                    memory = self._memory(len(queries), k)
                    continue
                rows = max(1, PIECE // int(candidates.max()))
                for low in range(0, len(some), rows):
                    piece = slice(low, low + rows)
                    found.append(_settle(some[piece], bank, k, scores[piece], best[piece], cut[piece]))
                start += len(some)
        products = " then ".join(str(dtype).removeprefix("torch.") for dtype in self.dtypes)
        return Neighbours(
            torch.cat([indices for indices, _ in found]).cpu(),
            torch.cat([similarities for _, similarities in found]).cpu(),
            f"torch {torch.__version__} ({products} products, float64 scores)",
        )

    def _memory(self, queries: int, k: int) -> Tensor:
        """(block, group, width): room for the products of a block of queries with the bank, padded to whole groups."""
        group = max(1, min(GROUP, len(self.bank) // (8 * k)))
        width = -(-len(self.bank) // group)
        block = max(32, SCORE_BYTES // (width * group * self.sketch.dtype.itemsize))
        return torch.empty(min(block, queries), group, width, dtype=self.sketch.dtype, device=self.bank.device)


def _propose(queries: Tensor, sketch: Sketch, k: int, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Fill `scores` (m, group, width) with products; the maxima (m, width) over groups, and the cut (m,) they imply.

    Every one of the k nearest has a score of at least the cut. A group is columns j, j + width, j + 2 width, ..., so
    that images of one class, neighbours in a sorted training set, fall into different groups.
    """
    rounded, width = queries.to(sketch.dtype), scores.shape[2]
    best = torch.full_like(scores[:, 0], -torch.inf)
    for i in range(scores.shape[1]):
        rows = sketch.rows[i * width : (i + 1) * width]
        if len(rows):
            torch.mm(rounded, rows.T, out=scores[:, i, : len(rows)])
        scores[:, i, len(rows) :] = -torch.inf
        torch.maximum(best, scores[:, i], out=best)
    best = best.float()
    # k groups hold at least k columns whose score reaches `reached`. A score is a product that was rounded by at most
    # `step` of its size, whichever way the library rounds: once for these columns and once for the ones to keep.
    reached = best.topk(k, dim=1, sorted=False).values.amin(dim=1).double()
    step = torch.finfo(sketch.dtype).eps
    cut = reached - step * reached.abs() - 2 * sketch.error(queries)
    cut = (cut - step * cut.abs()).float()
    return best, torch.nextafter(cut, torch.full_like(cut, -torch.inf))  # the conversion may have rounded up


def _settle(queries: Tensor, bank: Tensor, k: int, scores: Tensor, best: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
    """Score all columns that reach the cut in float64: the k nearest of each query, indices and similarities."""
    row, group = (best >= cut[:, None]).nonzero().unbind(dim=1)
    kept, member = (scores[row, :, group].float() >= cut[row, None]).nonzero().unbind(dim=1)
    row, column = row[kept], member * scores.shape[2] + group[kept]
    return best_of(row, column, inner_products(queries, bank, row, column), len(queries), k)


def inner_products(queries: Tensor, bank: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """(pairs,) float64: the inner product of `queries[row]` and `bank[column]`, summed in one order for all pairs."""
    chunk, exact = 1024, queries.double()
    result = torch.empty(len(row), dtype=torch.float64, device=bank.device)
    # Buffers that are used again stay in the cache; fresh ones cost three times as long
    taken = bank.new_empty(chunk, bank.shape[1])
    left, right = torch.empty_like(taken, dtype=torch.float64), torch.empty_like(taken, dtype=torch.float64)
    for low in range(0, len(row), chunk):
        size = min(chunk, len(row) - low)
        torch.index_select(bank, 0, column[low : low + size], out=taken[:size])
        torch.index_select(exact, 0, row[low : low + size], out=right[:size])
        left[:size].copy_(taken[:size]).mul_(right[:size])
        torch.sum(left[:size], dim=1, out=result[low : low + size])
    return result


def best_of(row: Tensor, column: Tensor, score: Tensor, rows: int, k: int) -> tuple[Tensor, Tensor]:
    """Of candidate pairs, at least k a row, the k with the largest score in each row; ties by the smaller column."""
    order = column.argsort(stable=True)
    order = order[score[order].argsort(descending=True, stable=True)]
    order = order[row[order].argsort(stable=True)]
    counts = torch.bincount(row, minlength=rows)
    first = counts.cumsum(0) - counts
    chosen = order[first[:, None] + torch.arange(k, device=row.device)]
    return column[chosen], score[chosen]


@functools.cache
def _bfloat16_pays() -> bool:
    """Whether bfloat16 products are faster than float32's on this CPU: only with AVX512-BF16, AMX or the like."""
    left, right = torch.randn(512, 384, generator=torch.Generator().manual_seed(0)), torch.ones(2048, 384)
    cheap = left.bfloat16(), right.bfloat16()
    return fastest(lambda: cheap[0] @ cheap[1].T) < 0.8 * fastest(lambda: left @ right.T)


def fastest(call: Callable[[], Any], repeats: int = 3) -> float:
    """Seconds of the fastest of some repetitions: the others were disturbed."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return min(times)


@contextmanager
def _full_precision() -> Iterator[None]:
    """float32 products in float32, whatever the training run allowed: the bound on their error relies on it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
