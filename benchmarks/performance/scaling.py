"""How time and memory grow with batch, crops, image size, images, classes and records: scaling curves.

    python -m benchmarks.performance scaling [--quick] [--results DIR]

Writes results/scaling.csv and scaling.png. Times are medians of three, on this machine. The memory of a
training step is what `LiveMemory` counts of its tensors; that of an evaluation and of tables is how far the resident
set rises above what it was before (VmHWM of /proc, so Linux only). A busy machine is named in the figure's notes.
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from benchmarks.gpu_check.checks import Architecture, Bench, Sizes
from benchmarks.gpu_check.noise import built, noise_batch, resolved
from benchmarks.performance.report import this_machine
from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer
from ssl_bench.evaluation.speed import BUSY, Stopwatch, Timing, cpu_share
from ssl_bench.evaluators.knn.nearest import nearest
from ssl_bench.evaluators.linear_probe.training import ProbeSettings, train_probes
from ssl_bench.figures.csv_text import to_csv
from ssl_bench.figures.drawing import draw
from ssl_bench.figures.values import Figure, Line, Panel, Point, Reference, Strip
from ssl_bench.method import Progress
from ssl_bench.planning.step_memory import measure_step
from ssl_bench.system.files import write_atomically

ROOT = Path(__file__).parents[2]
REPEATS = 3
CPU = torch.device("cpu")
MIB = 2**20
FROM_ZERO = Reference("", 0.0)
"""So that twice the height is twice the cost."""


@dataclass(frozen=True)
class Cost:
    """Of one point of a curve."""

    x: float
    timings: tuple[Timing, ...]
    memory: float | None
    """Bytes; None where the system does not tell."""

    @property
    def seconds(self) -> float:
        """Median."""
        return median(one.wall for one in self.timings)


@dataclass(frozen=True)
class Curve:
    """Costs along one quantity, everything else as `what` says."""

    id: str
    what: str
    x_title: str
    costs: tuple[Cost, ...]


def timed(work: Callable[[], object], repeats: int = REPEATS) -> tuple[Timing, ...]:
    """Seconds of `work` after a first, unmeasured time."""
    work()
    found = []
    for _ in range(repeats):
        with Stopwatch(CPU) as watch:
            work()
        found.append(watch.timing)
    return tuple(found)


def step_cost(x: float, method: str, sizes: Sizes) -> Cost:
    """A training step of the method on deit_ti16: forward, backward, optimizer, update."""
    request = resolved(method, sizes.architectures[0], Bench(CPU, sizes))
    settings = OptimizerSettings(**request.recipe.optimizer)
    trained = built(request).train()
    batch = noise_batch(request, trained, sizes.batch, CPU)
    optimizer, progress = build_optimizer(settings, trained.parameter_groups()), Progress(500, 1000, 50, 100)

    def step() -> None:
        output = trained(batch, progress)
        output.loss.backward()
        trained.before_optimizer(progress)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            trained.update(output.carry, progress)

    memory = measure_step(trained, settings, [(view.shape, view.dtype) for view in batch.views]).peak
    return Cost(x, timed(step), memory)


def step_curves(*, quick: bool) -> Iterable[Curve]:
    """Of batch, crops and image size."""

    def sizes(batch: int, image_px: int, **values: object) -> Sizes:
        chosen = {key.replace("__", "."): value for key, value in values.items()}
        small = {"backbone.depth": 1, "backbone.dim": 32, "backbone.heads": 2} if quick else {}
        return Sizes((Architecture("deit_ti16", {**small, **chosen}),), image_px=image_px, batch=batch, steps=200)

    px = 32 if quick else 96
    batches = (2, 4) if quick else (4, 8, 16, 32)
    costs = tuple(step_cost(batch, "simclr", sizes(batch, px)) for batch in batches)
    yield Curve("batch", f"a step of simclr, deit_ti16, {px} px", "images per batch", costs)
    views, batch = ((0, 1) if quick else (0, 2, 4, 8)), 2 if quick else 8
    costs = tuple(step_cost(local, "dino", sizes(batch, px, method__local_views=local)) for local in views)
    yield Curve("crops", f"a step of dino, deit_ti16, {px} px, batch {batch}", "local crops", costs)
    sides = (32, 48) if quick else (64, 96, 128, 192)
    costs = tuple(step_cost(side, "simclr", sizes(batch, side)) for side in sides)
    yield Curve("image size", f"a step of simclr, deit_ti16, batch {batch}", "side of the images (px)", costs)


def knn_curve(*, quick: bool) -> Curve:
    """Of training images: 20 neighbors of 500 queries."""
    generator, costs = torch.Generator().manual_seed(0), []
    for images in (200, 400) if quick else (5_000, 20_000, 80_000):
        bank, queries = (torch.randn(count, 384, generator=generator) for count in (images, 20 if quick else 500))
        costs.append(_measured(images, lambda bank=bank, queries=queries: nearest(queries, bank, 20, cosine=True)))  # type: ignore[misc]
    return Curve("images", "20 neighbors of 500 queries, 384 values", "training images", tuple(costs))


def probe_curve(*, quick: bool) -> Curve:
    """Of classes: one epoch of a linear probe with 13 rates."""
    generator, costs = torch.Generator().manual_seed(0), []
    images, rates = (64, 2) if quick else (4096, 13)
    features = torch.randn(images, 384, generator=generator)
    settings = ProbeSettings([0.1] * rates, epochs=1, batch_size=256, momentum=0.9, seed=0)
    for classes in (2, 4) if quick else (10, 100, 1000):
        labels = torch.arange(images) % classes

        def train(labels: torch.Tensor = labels, classes: int = classes) -> object:
            return train_probes(features, labels, features[:64], labels[:64], classes, settings)

        costs.append(_measured(classes, train))
    return Curve("classes", f"an epoch of the linear probe, {rates} rates, {images:,} images", "classes", tuple(costs))


def tables_curve(*, quick: bool) -> Curve:
    """Of records: all built-in tables."""
    from benchmarks.performance.tables import all_tables, write_copies

    costs = []
    for records in (2, 4) if quick else (50, 200, 800):
        with tempfile.TemporaryDirectory() as folder:
            write_copies(Path(folder), records)
            costs.append(_measured(records, lambda folder=folder: all_tables(Path(folder))))  # type: ignore[misc]
    return Curve("records", "all built-in tables", "records", tuple(costs))


def _measured(x: float, work: Callable[[], object]) -> Cost:
    """Time, then the rise of the resident set in one more call."""
    timings = timed(work)
    memory = None
    with suppress(OSError, StopIteration):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed must not be at hand
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        before = _resident("VmRSS")
        work()
        memory = max(0, _resident("VmHWM") - before)
    return Cost(x, timings, memory)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def figure(curves: Sequence[Curve], source: str) -> Figure:
    """Two rows of panels, time above memory."""
    times = tuple(_panel(curve, "time", "s", [Point(cost.x, cost.seconds) for cost in curve.costs]) for curve in curves)
    memories = tuple(
        _panel(curve, "memory", "MiB", points)
        for curve in curves
        if (points := [Point(cost.x, cost.memory / MIB) for cost in curve.costs if cost.memory is not None])
    )
    timings = [one for curve in curves for cost in curve.costs for one in cost.timings]
    share = cpu_share(timings, torch.get_num_threads())
    notes = (f"CPU share {share:.0%}" + (": the machine was busy, times say little" if share < BUSY else ""),)
    return Figure("scaling", "Scaling", source, (Strip("time", times), Strip("memory", memories)), notes)


def _panel(curve: Curve, title: str, unit: str, points: list[Point]) -> Panel:
    line = Line("", tuple(points), unit=unit)  # the title names it
    return Panel("lines", f"{curve.id}: {curve.what}", curve.x_title, f"{title} ({unit})", (line,), (FROM_ZERO,))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small points a curve: whether it runs, no figures")
    parser.add_argument("--results", type=Path, default=ROOT / "results", metavar="DIR", help="where both are written")
    given = parser.parse_args(arguments)
    curves = []
    for curve in all_curves(quick=given.quick):
        curves.append(curve)
        for cost in curve.costs:
            memory = "" if cost.memory is None else f", {cost.memory / MIB:,.0f} MiB"
            print(f"{curve.id:<11} {cost.x:>7,.0f} {curve.x_title}: {cost.seconds:.3f} s{memory}", flush=True)
    machine = this_machine()
    source = f"{machine['device']}, {machine['threads']} threads, torch {torch.__version__}"
    drawn = figure(curves, source)
    folder = given.results
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "scaling.csv", to_csv(drawn).encode())
    write_atomically(folder / "scaling.png", draw(drawn, "png"))
    print(f"written to {folder / 'scaling.csv'} and scaling.png; {'; '.join(drawn.notes)}")
    return 0


def all_curves(*, quick: bool) -> Iterable[Curve]:
    """Every curve, one after the other."""
    yield from step_curves(quick=quick)
    for curve in (knn_curve, probe_curve, tables_curve):
        yield curve(quick=quick)


if __name__ == "__main__":
    raise SystemExit(main())
