"""Exact nearest neighbours by inner product: FAISS or torch, whichever is faster here, with the same answer.

"The same" is meant literally: both order neighbours by the inner product computed in float64, ties by index, and both
prove that none was missed (`torch_search` has the argument). So a record need not say which of them was used to be
comparable, and the choice may rest on a stopwatch.
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_bench.errors import UserError
from ssl_bench.evaluators.knn.torch_search import Neighbours, Sketch, TorchSearch, best_of, fastest, inner_products

Backend = Literal["auto", "faiss", "torch"]

TRIAL = (256, 20_000)
"""Queries and bank rows of the trial that decides between FAISS and torch: a few hundredths of a second each."""
SPARE = 32
"""Neighbours that FAISS is asked for beyond k, to see that the k-th is clear of what was left out."""


def nearest(
    queries: Tensor,
    bank: Tensor,
    k: int,
    backend: Backend = "auto",
    device: torch.device | str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> Neighbours:
    """The `k` rows of `bank` (n, dim) with the largest inner product with each of `queries` (m, dim); float32, finite.

    Whatever the backend: ordered by the inner product computed in float64, ties by the smaller index. Tensors are
    given and returned on the CPU; `device` is where the search runs. "auto" is torch, or FAISS where it is installed
    and wins a trial on part of a search that is large enough to be worth one.

    Raises `UserError` when FAISS is asked for and not installed, `ValueError` for other shapes, types or values.
    """
    _check(queries, bank, k)
    device = torch.device(device)
    if backend == "auto":
        backend = _faster_backend(queries, bank, k, device, say)
    if backend == "faiss":
        return FaissSearch(bank, device)(queries, k)
    return TorchSearch(bank.to(device))(queries.to(device), k)


class FaissSearch:
    """`FaissSearch(bank)(queries, k)`: IndexFlatIP proposes k and some more neighbours, float64 scores order them.

    Queries whose k-th neighbour is too close to what was left out are searched again in torch. Raises `UserError`
    when FAISS is not installed. A card that FAISS does not support is left alone.
    """

    def __init__(self, bank: Tensor, device: torch.device | str = "cpu") -> None:
        if not faiss_is_installed():
            raise UserError(
                "the k-NN search 'faiss' needs FAISS: pip install faiss-cpu; 'torch' gives the same numbers without it"
            )
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        self.bank, sketch = bank, Sketch(bank, torch.float32)
        self.mean, self.error = sketch.mean, sketch.error
        self.index: Any = faiss.IndexFlatIP(bank.shape[1])
        self.index.add(sketch.rows.numpy())
        device, place = torch.device(device), ""
        if device.type == "cuda" and faiss_runs_on_gpu():
            self.index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index or 0, self.index)
            place = " on the GPU"
        self.words = f"FAISS {faiss.__version__} IndexFlatIP{place} (float32 products, float64 scores)"

    def __call__(self, queries: Tensor, k: int) -> Neighbours:
        """`queries` (m, dim) float32 on the CPU, 1 <= k <= n."""
        proposed = min(k + SPARE, len(self.bank))
        products, columns = (
            torch.from_numpy(array) for array in self.index.search(queries.contiguous().numpy(), proposed)
        )
        row, column = torch.arange(len(queries)).repeat_interleave(proposed), columns.reshape(-1)
        score = inner_products(queries, self.bank, row, column)
        indices, similarities = best_of(row, column, score, len(queries), k)
        if proposed == len(self.bank):
            return Neighbours(indices, similarities, self.words)
        last = products[:, -1].double()
        left_out = last + 2.0**-23 * last.abs() + self.error(queries)  # nothing that was left out is above this
        unsure = (similarities[:, -1] - queries.double() @ self.mean.double() <= left_out).nonzero()[:, 0]
        if not len(unsure):
            return Neighbours(indices, similarities, self.words)
        again = TorchSearch(self.bank)(queries[unsure], k)
        indices[unsure], similarities[unsure] = again.indices, again.similarities
        words = f"{self.words}; {len(unsure)} of {len(queries)} queries, with near-ties, by {again.searched_by}"
        return Neighbours(indices, similarities, words)


def faiss_is_installed() -> bool:
    """Whether `import faiss` would find something, without the cost of importing it."""
    return importlib.util.find_spec("faiss") is not None


@functools.cache
def faiss_runs_on_gpu(
    program: str = "import faiss, numpy; index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), 8);"
    "rows = numpy.eye(8, dtype='float32'); index.add(rows);"
    "assert (index.search(rows, 1)[1][:, 0] == range(8)).all()",
) -> bool:
    """Whether GPU FAISS is installed and works: tried in another process, because an unsupported card aborts it."""
    try:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _faster_backend(
    queries: Tensor, bank: Tensor, k: int, device: torch.device, say: Callable[[str], None]
) -> Literal["faiss", "torch"]:
    worth_a_trial = len(queries) * len(bank) >= 40 * TRIAL[0] * TRIAL[1]
    if device.type != "cpu" or not worth_a_trial or not faiss_is_installed():
        return "torch"
    few, part = queries[: TRIAL[0]], bank[: TRIAL[1]]
    searches: dict[Literal["faiss", "torch"], TorchSearch | FaissSearch]
    searches = {"torch": TorchSearch(part), "faiss": FaissSearch(part)}
    seconds = {name: fastest(functools.partial(search, few, k)) for name, search in searches.items()}
    winner = min(searches, key=lambda name: seconds[name])
    timings = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
    say(f"k-NN search by {winner}, after a trial of {len(few)} queries in {len(part)} images: {timings}")
    return winner


def _check(queries: Tensor, bank: Tensor, k: int) -> None:
    if queries.dim() != 2 or bank.dim() != 2 or queries.shape[1] != bank.shape[1] or not len(queries):
        raise ValueError(f"queries {tuple(queries.shape)} and bank {tuple(bank.shape)}: give (m, dim) and (n, dim)")
    if not 1 <= k <= len(bank):
        raise ValueError(f"k = {k}: give 1 to {len(bank)}, the number of rows in the bank")
    for name, tensor in (("queries", queries), ("bank", bank)):
        if tensor.dtype != torch.float32 or not all(bool(torch.isfinite(end)) for end in tensor.aminmax()):
            raise ValueError(f"{name}: give finite float32 values, not {tensor.dtype} or NaN")
