"""CPU time of the exact k-NN search against the plain formula, measured in one run with interleaved repetitions.

The plain formula is the released DINO script's (eval_knn.py): `(block @ bank.T).topk(k)`, a hundredth of the
queries at once. Ours gives more than it does (order by float64 scores, ties by index); the results are checked against
each other in every repetition. Features are random unit vectors, or clusters as a trained network makes them.

    python -m benchmarks.performance.knn --queries 5000 --bank 200000 --dim 384 --k 20 --repeats 5
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.performance.ratios import Goal, Ratio, by_turns, faster
from ssl_bench.evaluation.speed import Stopwatch
from ssl_bench.evaluators.knn.nearest import Backend, nearest


def plain_formula(queries: Tensor, bank: Tensor, k: int, block: int) -> tuple[Tensor, Tensor]:
    """Similarities and indices (m, k) as in the released script, for `block` queries at once."""
    parts = [(some @ bank.T).topk(k) for some in queries.split(block)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def make_features(queries: int, bank: int, dim: int, clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit vectors (queries, dim) and (bank, dim): directions of equal chance, or around `clusters` centers, sorted."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(queries + bank, dim, generator=generator)
    if clusters:
        centers = torch.randn(clusters, dim, generator=generator)
        of_query = torch.randint(clusters, (queries,), generator=generator)
        of_bank = torch.randint(clusters, (bank,), generator=generator).sort().values
        features = features + centers[torch.cat([of_query, of_bank])] + 2 * torch.randn(dim, generator=generator)
    features = normalize(features, dim=1)
    return features[:queries], features[queries:]


def compare(queries: Tensor, bank: Tensor, k: int, repeats: int, block: int) -> float:
    """Print CPU seconds and ratios of every backend; the median ratio of "auto"."""
    words: dict[str, str] = {}
    results: dict[str, tuple[Tensor, Tensor]] = {}
    backends: list[Backend] = ["auto", "torch"]  # "auto" is FAISS where it is installed

    def ours(backend: Backend) -> Callable[[], tuple[Tensor, Tensor]]:
        def search() -> tuple[Tensor, Tensor]:
            found = nearest(queries, bank, k, backend)
            words[backend] = found.searched_by
            return found.similarities, found.indices

        return search

    contestants = {"plain": lambda: plain_formula(queries, bank, k, block), **{name: ours(name) for name in backends}}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats):
        for name, search in contestants.items():
            with Stopwatch(torch.device("cpu")) as watch:
                results[name] = search()
            seconds[name].append(watch.timing.cpu)
        check(results, queries, bank)
        print(
            f"  repetition {repeat + 1}: " + ", ".join(f"{name} {seconds[name][-1]:.2f} s" for name in seconds),
            flush=True,
        )
    print(f"  results of all are the same {k} neighbors, near-ties of the plain formula aside")
    for name in backends:
        ratios = [plain / own for plain, own in zip(seconds["plain"], seconds[name], strict=True)]
        print(
            f"  {name}: {median(ratios):.2f} times as fast as the plain formula "
            f"(median of {repeats}, {min(ratios):.2f} to {max(ratios):.2f}); {words[name]}"
        )
    return median(plain / own for plain, own in zip(seconds["plain"], seconds["auto"], strict=True))


def ratios(*, quick: bool = False) -> list[Ratio]:
    """20 neighbors. The script takes 500 queries at once of ImageNet's 50,000, and would take 10 of these 1,000."""
    found = []
    size = (200, 2000) if quick else (1000, 100_000)
    for clusters, block in ((0, 500), (100, 500), (0, size[0] // 100)):
        queries, bank = make_features(*size, 384, clusters, seed=0)
        results: dict[str, tuple[Tensor, Tensor]] = {}

        def ours(queries: Tensor = queries, bank: Tensor = bank, results: dict[str, Any] = results) -> None:
            neighbors = nearest(queries, bank, 20)
            results["auto"] = neighbors.similarities, neighbors.indices

        def plain(
            queries: Tensor = queries, bank: Tensor = bank, results: dict[str, Any] = results, block: int = block
        ) -> None:
            results["plain"] = plain_formula(queries, bank, 20, block)

        pairs = by_turns(ours, plain, 2 if quick else 5)
        check(results, queries, bank)
        words = f"{clusters} clusters" if clusters else "random features"
        name = f"exact k-NN, {len(queries):,} queries in {len(bank):,} x 384, {words}"
        peer = f"DINO's eval_knn.py, {block} queries at once"
        found.append(faster(name, peer, pairs, torch.get_num_threads(), Goal(at_least=2.5)))
    found.append(against_products(*make_features(*size, 384, 0, seed=0), turns=2 if quick else 5))
    return found


def against_products(queries: Tensor, bank: Tensor, turns: int) -> Ratio:
    """The whole search against the matrix products of the plain formula alone: what no exact search can be far below.

    500 queries at once; nothing is chosen from the products.
    """

    def products() -> None:
        for some in queries.split(500):
            some @ bank.T

    pairs = by_turns(lambda: nearest(queries, bank, 20), products, turns)
    name = f"exact k-NN, {len(queries):,} queries in {len(bank):,} x 384, random features"
    return faster(name, "its matrix products alone, by torch", pairs, torch.get_num_threads(), Goal())


def check(results: dict[str, tuple[Tensor, Tensor]], queries: Tensor, bank: Tensor) -> None:
    """Raise unless our backends agree bitwise and the plain formula agrees up to the rounding of float32."""
    similarities, indices = results["auto"]
    for name, (values, found) in results.items():
        if name == "plain":
            assert (values.double() - similarities).abs().max() < 1e-5, name
            row, rank = (found != indices).nonzero().unbind(dim=1)
            taken = (queries[row].double() * bank[found[row, rank]].double()).sum(dim=1)
            assert not len(row) or (taken - similarities[row, rank]).abs().max() < 1e-5, name
        else:
            assert torch.equal(found, indices), name
            assert torch.equal(values, similarities), name


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=5_000, help="test images (default: %(default)s)")
    parser.add_argument("--bank", type=int, default=200_000, help="training images (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=384, help="length of a feature vector (default: %(default)s)")
    parser.add_argument("--k", type=int, nargs="+", default=[20], help="neighbors, e.g. --k 20 200 (default: 20)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repetitions (default: %(default)s)")
    parser.add_argument("--clusters", type=int, default=0, help="classes of the features; 0: none (default: 0)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--block",
        type=int,
        default=50,
        help="queries a block of the plain formula: the script's for 5000 (default: 50)",
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    queries, bank = make_features(given.queries, given.bank, given.dim, given.clusters, given.seed)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, {given.threads} threads, torch {torch.__version__}")
    ratios = []
    for k in given.k:
        print(f"{given.queries} queries in {given.bank} x {given.dim}, k = {k}, {given.clusters or 'no'} clusters")
        ratios.append(compare(queries, bank, k, given.repeats, given.block))
    listing = ", ".join(f"k = {k}: {ratio:.2f}" for k, ratio in zip(given.k, ratios, strict=True))
    print(f"median ratio, plain formula / auto: {listing} (n = {given.repeats})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
