"""Exact nearest neighbors by inner product: FAISS or torch propose candidates, float64 decides.

Neighbors are ordered by their inner product in float64, ties by index. Cheap products in float32 or bfloat16 only
propose the best candidates. With q a query, b a row of the bank, m the bank's mean, u the unit roundoff of the cheap
type and D the length of a row,

    |<q, b - m> - cheap product|  <=  (2 u + gamma) |q| |b - m|,    gamma = D v / (1 - D v),  v = 2^-23

(Cauchy-Schwarz; gamma bounds the rounding of a sum of D products: Higham 2002, Accuracy and Stability of Numerical
Algorithms, section 3.1, with twice float32's roundoff for v). A query whose k-th neighbor is not clear of the worst
candidate by that much is searched again with more candidates, at last with the whole bank: nothing is missed whatever
the data. <q, m> is the same for all rows; without it the error is small where features crowd together.

The bank may be the largest thing in memory (ImageNet's, 2048 values each: 10 GB), so no second one is made: rows are
normalized and the mean is taken off a block at a time.
Beside queries and bank a search holds `PRODUCTS` products and one block of rows, whatever the bank's size.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_bench.errors import UserError

Backend = Literal["auto", "faiss", "torch"]
Largest = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(queries, rows, count) -> the `count` largest products of each query with the rows, and which rows these are."""

QUERIES, ROWS = 4096, 1 << 16
"""Queries and rows of the bank that are compared at once."""
PRODUCTS = 1 << 26
"""Products that are in memory at once: 256 MiB in float32. Candidates: an eighth of them."""
SPARE = 16
"""Candidates beyond k, so that the k-th neighbor is clear of what is left out; bfloat16 takes twice as many."""
SCORED = 256
"""Rows that are scored in float64 at once."""
TRIAL_QUERIES, TRIAL_ROWS, WORTH_A_TRIAL = 64, 4096, 1 << 26
"""Size of a trial, and number of products from which one is made."""


class Bank(NamedTuple):
    """The rows that are searched, as they are or each divided by its length."""

    vectors: Tensor
    """(n, dim) float32."""
    lengths: Tensor | None
    """(n, 1): what to divide by, as `torch.nn.functional.normalize` does; None: by nothing."""

    @classmethod
    def of(cls, vectors: Tensor, normalized: bool) -> Bank:
        """The bank of these vectors, compared by cosine if `normalized`."""
        return cls(vectors, vectors.norm(dim=1, keepdim=True).clamp_min(1e-12) if normalized else None)

    def rows(self, which: slice | Tensor) -> Tensor:
        """A new tensor of these rows."""
        rows = self.vectors[which]
        return rows.clone() if self.lengths is None else rows / self.lengths[which]

    def blocks(self, size: int) -> Iterator[Tensor]:
        """All rows in their order, up to `size` at once."""
        return (self.rows(slice(start, start + size)) for start in range(0, len(self.vectors), size))


class Neighbors(NamedTuple):
    """The nearest rows of the bank, best first: `indices` (queries, k) int64, `similarities` (queries, k) float64."""

    indices: Tensor
    similarities: Tensor
    searched_by: str
    """Library and type of the products, e.g. "torch 2.14.1 (bfloat16 products, float64 scores)"."""


def nearest(
    queries: Tensor,
    bank: Tensor,
    k: int,
    backend: Backend = "auto",
    device: torch.device | str = "cpu",
    *,
    cosine: bool = False,
) -> Neighbors:
    """The `k` rows of `bank` (n, dim) with the largest inner product with each of `queries` (m, dim); float32, finite.

    With `cosine` both are l2-normalized first, the bank without a copy of it.
    The answer is the same whatever the backend. Tensors are given and returned on the CPU; torch searches on `device`,
    FAISS on the CPU. "auto" is torch on a GPU, and on a CPU what a short trial on these data shows to be the fastest.

    Raises `UserError` when FAISS is asked for and not installed, `ValueError` for other shapes, types or values.
    """
    _check(queries, bank, k)
    if backend == "faiss":
        return exact_search(queries, bank, k, torch.float32, largest_by_faiss, cosine=cosine)
    # A GPU may add bfloat16 products up in less than float32, which the bound does not cover
    ways: list[tuple[torch.dtype, Largest]] = [(torch.float32, largest_by_torch)]
    if torch.device(device).type == "cpu":
        ways.append((torch.bfloat16, largest_by_torch))
        if backend == "auto" and faiss_is_installed():
            ways.append((torch.float32, largest_by_faiss))
    dtype, largest = fastest(ways, queries, bank, k + SPARE)
    return exact_search(queries.to(device), bank.to(device), k, dtype, largest, cosine=cosine)


def fastest(
    ways: list[tuple[torch.dtype, Largest]], queries: Tensor, bank: Tensor, count: int
) -> tuple[torch.dtype, Largest]:
    """The way that took the least time, of two trials on the first queries and rows; the first where none is worth it.

    bfloat16 products, for example, are fast only with AVX512-BF16, AMX or the like.
    """
    if len(ways) == 1 or len(queries) * len(bank) < WORTH_A_TRIAL:
        return ways[0]

    def seconds(dtype: torch.dtype, largest: Largest) -> float:
        some, rows = queries[:TRIAL_QUERIES].to(dtype), bank[:TRIAL_ROWS].to(dtype)
        begun = time.perf_counter()
        largest(some, rows, min(count, len(rows)))
        return time.perf_counter() - begun

    took = [min(seconds(*way), seconds(*way)) for way in ways]
    return ways[took.index(min(took))]


def exact_search(
    queries: Tensor, vectors: Tensor, k: int, dtype: torch.dtype, largest: Largest, *, cosine: bool = False
) -> Neighbors:
    """`nearest`, candidates proposed by `largest` from products of type `dtype`, on the tensors' device."""
    by = "FAISS" if largest is largest_by_faiss else f"torch {torch.__version__}"
    words = f"{by} ({str(dtype).removeprefix('torch.')} products, float64 scores)"
    queries, bank = normalize(queries, dim=1) if cosine else queries, Bank.of(vectors, cosine)
    center = sum((rows.sum(dim=0) for rows in bank.blocks(1024)), torch.zeros_like(vectors[0])) / len(vectors)
    radius = max(float(rows.sub_(center).norm(dim=1).max()) for rows in bank.blocks(1024))
    indices = torch.empty(len(queries), k, dtype=torch.int64, device=vectors.device)
    similarities = torch.empty(len(queries), k, dtype=torch.float64, device=vectors.device)
    left = torch.arange(len(queries), device=vectors.device)
    count = k + SPARE if dtype == torch.float32 else 2 * (k + SPARE)
    while len(left):
        count, unsure = min(count, len(vectors)), []
        for block in torch.split(left, max(1, min(QUERIES, PRODUCTS // (8 * count)))):
            some = queries[block]
            columns, worst = _candidates(some, bank, center, count, dtype, largest)
            indices[block], similarities[block] = _best(some, bank, columns, k)
            if count < len(vectors):
                left_out = worst + torch.finfo(dtype).eps * worst.abs() + error_bound(some, center, radius, dtype)
                kth = similarities[block, -1] - some.double() @ center.double()
                unsure.append(block[kth <= left_out])
        left, count, dtype = torch.cat([*unsure, left[:0]]), 8 * count, torch.float32
    return Neighbors(indices.cpu(), similarities.cpu(), words)


def largest_by_torch(queries: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`topk` of the products; of the maxima of groups of up to 8 rows first, which is faster than of all rows.

    A group is rows j, j + width, ...: neighbors in a sorted bank fall into different ones.
    """
    groups = max(1, min(8, len(rows) // (64 * count)))
    width = len(rows) // groups
    whole, found = groups * width, []
    for some in torch.split(queries, max(1, PRODUCTS // len(rows))):
        products = some @ rows.T
        best = products[:, :whole].view(-1, groups, width).amax(dim=1).topk(count, sorted=False).indices
        rest = torch.arange(whole, len(rows), device=rows.device).expand(len(some), -1)
        columns = torch.cat([*(best + start for start in range(0, whole, width)), rest], dim=1)
        top = products.gather(1, columns).topk(count)
        found.append((top.values, columns.gather(1, top.indices)))
    return torch.cat([values for values, _ in found]), torch.cat([columns for _, columns in found])


def largest_by_faiss(queries: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """FAISS's exhaustive search. Raises `UserError` when FAISS is not installed."""
    if not faiss_is_installed():
        raise UserError(
            "the k-NN search 'faiss' needs FAISS: pip install faiss-cpu; 'torch' gives the same numbers without it"
        )
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    products, columns = faiss.knn(queries.numpy(), rows.numpy(), count, metric=faiss.METRIC_INNER_PRODUCT)
    return torch.from_numpy(products), torch.from_numpy(columns)


def _candidates(
    queries: Tensor, bank: Bank, center: Tensor, count: int, dtype: torch.dtype, largest: Largest
) -> tuple[Tensor, Tensor]:
    """The columns (m, count) with the largest cheap products, and the worst of these products, (m,) float64."""
    if count == len(bank.vectors):
        return torch.arange(count, device=queries.device).expand(len(queries), -1), queries.new_empty(0)
    rounded = queries.to(dtype)
    values, columns, start = rounded.new_empty(len(queries), 0), queries.new_empty(len(queries), 0).long(), 0
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # whatever the training run allowed: the bound relies on it
    try:
        for rows in bank.blocks(ROWS):
            found, places = largest(rounded, rows.sub_(center).to(dtype), min(count, len(rows)))
            values, columns = torch.cat([values, found], dim=1), torch.cat([columns, places + start], dim=1)
            top = values.topk(min(count, values.shape[1]))
            values, columns = top.values, columns.gather(1, top.indices)
            start += len(rows)
    finally:
        torch.set_float32_matmul_precision(precision)
    return columns, values[:, -1].double()


def _best(queries: Tensor, bank: Bank, columns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of the rows `columns` (m, count) the k with the largest products in float64, ties by the smaller column.

    Query by query: its rows stay in the processor's cache, and equal rows get equal sums, which a matrix product does
    not promise.
    """
    columns = columns.sort(dim=1).values
    scores = torch.empty(columns.shape, dtype=torch.float64, device=queries.device)
    for query, of_query, score in zip(queries.double(), columns, scores, strict=True):
        for places, some in zip(of_query.split(SCORED), score.split(SCORED), strict=True):
            torch.sum(bank.rows(places).double().mul_(query), dim=1, out=some)
    top = scores.sort(dim=1, descending=True, stable=True)
    return columns.gather(1, top.indices[:, :k]), top.values[:, :k]


def error_bound(queries: Tensor, center: Tensor, radius: float, dtype: torch.dtype) -> Tensor:
    """(m,) float64: the bound of the module's docstring for the largest |b - m|, `radius`, and float64's rounding."""
    dim, unit = len(center), torch.finfo(dtype).eps / 2 + 2.0**-23  # rounded to `dtype`, the mean subtracted before
    gamma = dim * 2.0**-23 / (1 - dim * 2.0**-23)
    double = dim * 2.0**-51 * (radius + float(center.norm()))
    # 1.01 covers terms of second order and the rounding of the norms, the last term products flushed to zero
    bound: Tensor = queries.double().norm(dim=1) * (1.01 * (2 * unit + gamma) * radius + double) + 1e-30 * dim
    return bound


def faiss_is_installed() -> bool:
    """Whether `import faiss` would find something, without the cost of importing it."""
    return importlib.util.find_spec("faiss") is not None


def _check(queries: Tensor, bank: Tensor, k: int) -> None:
    if queries.dim() != 2 or bank.dim() != 2 or queries.shape[1] != bank.shape[1] or not len(queries):
        raise ValueError(f"queries {tuple(queries.shape)} and bank {tuple(bank.shape)}: give (m, dim) and (n, dim)")
    if not 1 <= k <= len(bank):
        raise ValueError(f"k = {k}: give 1 to {len(bank)}, the number of rows in the bank")
    for name, tensor in (("queries", queries), ("bank", bank)):
        if tensor.dtype != torch.float32 or not all(bool(torch.isfinite(end)) for end in tensor.aminmax()):
            raise ValueError(f"{name}: give finite float32 values, not {tensor.dtype} or NaN")
