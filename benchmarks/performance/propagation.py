"""Time and extra memory of one step of DAVIS label propagation against the dense formula, in one run.

The dense formula is that of the released script (DINO, eval_video_segmentation.py): all pairs of patches, times a 0/1
mask of neighbors that is made once, outside of the clock. Features are random unit vectors. Each repetition runs both
in turn; the soft labels are compared. Extra memory is how far the peak resident set of a fresh process (VmHWM, so
Linux only) rises in one step above what is resident before it: the inputs, and the libraries after a small step. The
mask of neighbors counts as the dense formula's.

    python -m benchmarks.performance.propagation --rows 60 --columns 104 --sources 8 --repeats 3
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.performance.ratios import Goal, Ratio, by_turns, faster, share
from ssl_bench.evaluators.davis.propagation import propagate

RADIUS, TOP_K, TEMPERATURE = 12, 5, 0.1
ROOT = Path(__file__).parents[2]
Case = tuple[Tensor, list[Tensor], list[Tensor]]


def make_case(rows: int, columns: int, sources: int, dim: int, channels: int, seed: int) -> Case:
    """Target and source features (rows, columns, dim), and soft labels (rows, columns, channels) of the sources."""
    generator = torch.Generator().manual_seed(seed)
    features = normalize(torch.randn(sources + 1, rows, columns, dim, generator=generator), dim=-1)
    labels = torch.rand(sources, rows, columns, channels, generator=generator).softmax(dim=-1)
    return features[0], list(features[1:]), list(labels)


def neighborhood(rows: int, columns: int, sources: int) -> Tensor:
    """(sources, patches, patches): 1 where the source patch is within the square neighborhood of the target's."""
    near_row = (torch.arange(rows)[:, None] - torch.arange(rows)).abs() <= RADIUS
    near_column = (torch.arange(columns)[:, None] - torch.arange(columns)).abs() <= RADIUS
    near = (near_row[:, None, :, None] & near_column[None, :, None, :]).view(rows * columns, -1)
    return near.float()[None].repeat(sources, 1, 1)


def dense(case: Case, near: Tensor) -> Tensor:
    """The released steps on grids that are normalized already."""
    target, sources, labels = case
    rows, columns, dim = target.shape
    patches, stacked = rows * columns, torch.stack(sources).view(len(sources), -1, dim)
    affinity = torch.exp(torch.bmm(target.view(1, -1, dim).expand(len(sources), -1, -1), stacked.mT) / TEMPERATURE)
    affinity *= near
    affinity = affinity.transpose(2, 1).reshape(-1, patches)
    least = torch.topk(affinity, dim=0, k=TOP_K).values.min(dim=0).values
    affinity[affinity < least] = 0
    affinity = affinity / affinity.sum(dim=0, keepdim=True)
    return (torch.cat([one.view(patches, -1) for one in labels]).T @ affinity).T.view(rows, columns, -1)


def ours(case: Case) -> Tensor:
    return propagate(*case, radius=RADIUS, top_k=TOP_K, temperature=TEMPERATURE)


def extra_memory(given: argparse.Namespace, which: str) -> float:
    """MiB by which the peak resident set of a fresh process grows in one step."""
    options = [f"--{name}={getattr(given, name)}" for name in ("rows", "columns", "sources", "dim", "seed", "threads")]
    command = [sys.executable, "-m", "benchmarks.performance.propagation", *options, "--measure-memory-of", which]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


def measure_memory(case: Case, which: str) -> float:
    def step(some: Case) -> None:
        if which == "dense":
            dense(some, neighborhood(*some[0].shape[:2], len(some[1])))
        else:
            ours(some)

    step(make_case(8, 8, 2, 8, 2, 0))
    ctypes.CDLL(None).malloc_trim(0)  # what was freed must not be at hand for the step
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is resident now
    before = resident_mib("VmRSS")
    step(case)
    return resident_mib("VmHWM") - before


def resident_mib(which: str) -> float:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which)]
    return int(line.split()[1]) / 1024


def ratios(*, quick: bool = False) -> list[Ratio]:
    """A step at 480p with patches of 8 and of 16 px: time, and extra memory of a fresh process."""
    found = []
    sizes = [(60, 104, Goal(at_least=10), Goal(at_most=0.03)), (30, 52, Goal(at_least=3), Goal(at_most=0.3))]
    for rows, columns, time_goal, memory_goal in [(12, 16, Goal(), Goal())] if quick else sizes:
        case = make_case(rows, columns, 8, 384, 3, 0)
        near = neighborhood(rows, columns, 8)
        pairs = by_turns(lambda case=case: ours(case), lambda case=case, near=near: dense(case, near), 3)  # type: ignore[misc]
        difference = float((ours(case) - dense(case, near)).abs().max())
        assert difference < 1e-5, f"the soft labels differ by {difference}"
        name, threads = f"DAVIS propagation, {rows} x {columns} patches", torch.get_num_threads()
        found.append(faster(name, "the dense formula", pairs, threads, time_goal))
        if Path("/proc/self/clear_refs").exists():
            given = argparse.Namespace(rows=rows, columns=columns, sources=8, dim=384, seed=0, threads=threads)
            memory = extra_memory(given, "ours"), extra_memory(given, "dense")
            found.append(share(f"{name}: extra memory", "the dense formula", [memory], "MiB", memory_goal))
    return found


def compare(case: Case, repeats: int) -> float:
    """Print the times of each repetition and the difference of the results; the median ratio."""
    target, sources, _ = case
    near = neighborhood(*target.shape[:2], len(sources))
    contestants: dict[str, Callable[[], Tensor]] = {"dense": lambda: dense(case, near), "ours": lambda: ours(case)}
    ratios = []
    for repeat in range(repeats):
        seconds, results = {}, {}
        for name, step in contestants.items():
            begun = time.perf_counter()
            results[name] = step()
            seconds[name] = time.perf_counter() - begun
        difference = float((results["dense"] - results["ours"]).abs().max())
        assert difference < 1e-5, f"the soft labels differ by {difference}"
        ratios.append(seconds["dense"] / seconds["ours"])
        print(
            f"  repetition {repeat + 1}: dense {seconds['dense']:.2f} s, ours {seconds['ours']:.2f} s, "
            f"{ratios[-1]:.2f} times as fast, largest difference {difference:.1e}",
            flush=True,
        )
    return median(ratios)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="patches; with --columns: one size [default: 60 x 104 and 30 x 52]")
    parser.add_argument("--columns", type=int)
    parser.add_argument("--sources", type=int, default=8, help="source frames (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=384, help="length of a feature vector (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repetitions (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure-memory-of", choices=("dense", "ours"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    if given.measure_memory_of:
        case = make_case(given.rows, given.columns, given.sources, given.dim, 3, given.seed)
        print(measure_memory(case, given.measure_memory_of))
        return 0
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, {given.threads} threads, torch {torch.__version__}")
    summary = []
    for rows, columns in [(given.rows, given.columns)] if given.rows else [(60, 104), (30, 52)]:
        print(f"{rows} x {columns} patches, {given.dim} values, {given.sources} source frames, radius {RADIUS}")
        given.rows, given.columns = rows, columns
        ratio = compare(make_case(rows, columns, given.sources, given.dim, 3, given.seed), given.repeats)
        memory = {name: extra_memory(given, name) for name in ("dense", "ours")}
        share = memory["ours"] / memory["dense"]
        print(f"  extra memory: dense {memory['dense']:,.0f} MiB, ours {memory['ours']:,.0f} MiB: {share:.3f} of it")
        summary.append(f"{rows} x {columns}: {ratio:.2f} times as fast, {share:.3f} of the extra memory")
    print(f"median ratio, dense / ours: {'; '.join(summary)} (n = {given.repeats})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
