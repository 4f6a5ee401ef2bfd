"""Exact nearest neighbors by inner product: FAISS or torch propose candidates, float64 products order them.

Neighbors are ordered by their inner product in float64, ties by index: the same on every machine, whoever searches.
Products in float32 only propose the best candidates. With q a query, b a row of the bank, m the bank's mean and D the
length of a row,

    |<q, b - m> - float32 product|  <=  1.01 (D + 4) 2^-23 |q| |b - m|      for D up to 80,000

(Cauchy-Schwarz, and the rounding of a sum of D products: Higham 2002, Accuracy and Stability of Numerical Algorithms,
section 3.1, with twice float32's roundoff; four more roundings for taking the mean off). A query whose k-th neighbor is
not clear of the worst candidate by that much is searched again with more candidates, at last with the whole bank:
nothing is missed whatever the data. <q, m> is the same for all rows; without it the error is small where features crowd
together, as those of an untrained network do.

The bank may be the largest thing in memory (ImageNet's, 2048 values each: 10 GB), so no second one is made: rows are
normalized and the mean is taken off `ROWS` at a time.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_bench.errors import UserError

Backend = Literal["auto", "faiss", "torch"]
Largest = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(queries, rows, count) -> the `count` largest products of each query with the rows, and which rows these are."""

ROWS = 1 << 14
"""Rows of the bank that are compared at once."""
PRODUCTS = 1 << 24
"""Products of torch's search that are in memory at once: 64 MiB."""
CANDIDATES = 1 << 23
"""Candidates that are in memory at once: 96 MiB, values and columns."""
SPARE = 8
"""Candidates beyond k, or an eighth of k where that is more, so that the k-th is clear of what is left out."""
SCORED = 256
"""Rows that are scored in float64 at once: they stay in the processor's cache."""


class Bank(NamedTuple):
    """The vectors that are searched, as they are or each divided by its length."""

    vectors: Tensor
    """(n, dim) float32."""
    lengths: Tensor | None
    """(n, 1): what to divide by, as `torch.nn.functional.normalize` does; None: by nothing."""

    @classmethod
    def of(cls, vectors: Tensor, normalized: bool) -> Bank:
        """The bank of these vectors, compared by cosine if `normalized`."""
        return cls(vectors, vectors.norm(dim=1, keepdim=True).clamp_min(1e-12) if normalized else None)

    def rows(self, which: Tensor) -> Tensor:
        """These rows, (len(which), dim)."""
        rows = self.vectors.index_select(0, which)
        return rows if self.lengths is None else rows.div_(self.lengths[which])

    def blocks(self, size: int) -> Iterator[Tensor]:
        """All rows in their order, up to `size` at once; not to be written to."""
        if self.lengths is None:
            yield from torch.split(self.vectors, size)
        else:
            for rows, lengths in zip(torch.split(self.vectors, size), torch.split(self.lengths, size), strict=True):
                yield rows / lengths


class Neighbors(NamedTuple):
    """The nearest rows of the bank, best first: `indices` (queries, k) int64, `similarities` (queries, k) float64."""

    indices: Tensor
    similarities: Tensor
    searched_by: str
    """Library and type of the products, e.g. "FAISS (float32 products, float64 scores)"."""


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
    FAISS on the CPU. "auto" is torch on a GPU, and on a CPU FAISS where it is installed.

    Raises `UserError` when FAISS is asked for and not installed, `ValueError` for other shapes, types or values.
    """
    _check(queries, bank, k)
    if backend == "auto":
        backend = "faiss" if torch.device(device).type == "cpu" and faiss_is_installed() else "torch"
    if backend == "faiss":
        return exact_search(queries, bank, k, largest_by_faiss, cosine=cosine)
    return exact_search(queries.to(device), bank.to(device), k, largest_by_torch, cosine=cosine)


def exact_search(queries: Tensor, vectors: Tensor, k: int, largest: Largest, *, cosine: bool = False) -> Neighbors:
    """`nearest`, candidates proposed by `largest`, on the tensors' device."""
    by = "FAISS" if largest is largest_by_faiss else f"torch {torch.__version__}"
    queries, bank = normalize(queries, dim=1) if cosine else queries, Bank.of(vectors, cosine)
    center = sum((rows.sum(dim=0) for rows in bank.blocks(1024)), torch.zeros_like(vectors[0])) / len(vectors)
    radius = max(float((rows - center).norm(dim=1).max()) for rows in bank.blocks(1024))
    indices = torch.empty(len(queries), k, dtype=torch.int64, device=vectors.device)
    similarities = torch.empty(len(queries), k, dtype=torch.float64, device=vectors.device)
    left, count = torch.arange(len(queries), device=vectors.device), k + max(SPARE, k // 8)
    while len(left):
        count, unsure = min(count, len(vectors)), []
        for block in torch.split(left, max(1, CANDIDATES // count)):
            some = queries[block]
            columns, worst = _candidates(some, bank, center, count, largest)
            indices[block], similarities[block] = _best(some, bank, columns, k)
            if count < len(vectors):
                kth = similarities[block, -1] - some.double() @ center.double()
                unsure.append(block[kth <= worst + error_bound(some, center, radius)])
        left, count = torch.cat([*unsure, left[:0]]), 8 * count
    return Neighbors(indices.cpu(), similarities.cpu(), f"{by} (float32 products, float64 scores)")


def largest_by_torch(queries: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`topk` of the products; of the maxima of groups of up to 8 rows first, which is faster than of all rows.

    A group is rows j, j + width, ...: neighbors in a sorted bank fall into different ones.
    """
    groups = max(1, min(8, len(rows) // (64 * count)))
    width = len(rows) // groups
    whole, found = groups * width, []
    at_once = max(1, PRODUCTS // len(rows))
    memory = queries.new_empty(min(at_once, len(queries)), len(rows))  # new memory for every part would cost time
    for some in torch.split(queries, at_once):
        products = torch.mm(some, rows.T, out=memory[: len(some)])
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


def _candidates(queries: Tensor, bank: Bank, center: Tensor, count: int, largest: Largest) -> tuple[Tensor, Tensor]:
    """The columns (m, count) with the largest float32 products, and the worst of these products, (m,) float64."""
    if count == len(bank.vectors):
        return torch.arange(count, device=queries.device).expand(len(queries), -1), queries.new_empty(0)
    values, columns, start = queries.new_empty(len(queries), 0), queries.new_empty(len(queries), 0).long(), 0
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # whatever the training run allowed: the bound relies on it
    try:
        for rows in bank.blocks(ROWS):
            found, places = largest(queries, rows - center, min(count, len(rows)))
            values, columns = torch.cat([values, found], dim=1), torch.cat([columns, places + start], dim=1)
            top = values.topk(min(count, values.shape[1]))
            values, columns = top.values, columns.gather(1, top.indices)
            start += len(rows)
    finally:
        torch.set_float32_matmul_precision(precision)
    return columns, values[:, -1].double()


def _best(queries: Tensor, bank: Bank, columns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of the rows `columns` (m, count) the k with the largest products in float64, ties by the smaller column.

    Equal rows get equal sums, which a matrix product does not promise.
    """
    columns = columns.sort(dim=1).values
    scores = torch.empty(columns.shape, dtype=torch.float64, device=queries.device)
    together = max(1, SCORED // columns.shape[1])
    for some, of_some, score in zip(
        torch.split(queries.double(), together),
        torch.split(columns, together),
        torch.split(scores, together),
        strict=True,
    ):
        for places, out in zip(torch.split(of_some, SCORED, dim=1), torch.split(score, SCORED, dim=1), strict=True):
            rows = bank.rows(places.flatten()).double().view(*places.shape, -1)
            torch.sum(rows.mul_(some[:, None]), dim=2, out=out)
    top = scores.sort(dim=1, descending=True, stable=True)
    return columns.gather(1, top.indices[:, :k]), top.values[:, :k]


def error_bound(queries: Tensor, center: Tensor, radius: float) -> Tensor:
    """(m,) float64: the bound of the module's docstring for the largest |b - m|, `radius`, and float64's rounding."""
    dim = len(center)
    single, double = 1.01 * (dim + 4) * 2.0**-23 * radius, dim * 2.0**-51 * (radius + float(center.norm()))
    bound: Tensor = queries.double().norm(dim=1) * (single + double) + 1e-30 * dim  # 1e-30: products flushed to zero
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
