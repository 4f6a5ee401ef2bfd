"""A few steps of a run, to know its time and memory before any run of its kind has ended here.

A trial builds the method as the run would, makes a batch, takes steps with it and passes images through the network. It
writes nothing. Where a batch is large it is tried in part and scaled; then nothing is said of memory. What evaluators
do beside extracting features is a rough sum. The first run of the kind replaces all of this.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request
from ssl_bench.studies.costs import START_SECONDS, Costs, Machine, Sample
from ssl_bench.studies.plan import StudyRun, kind
from ssl_bench.studies.worker import context
from ssl_bench.system.allocator import keep_freed_memory
from ssl_bench.system.cpu_time import Spent, clocks
from ssl_bench.system.files import cache_folder, write_atomically

if TYPE_CHECKING:
    import torch

    from ssl_bench.backbone import Backbone
    from ssl_bench.dataset import Dataset
    from ssl_bench.recipes.resolve import Resolved

MOST_SECONDS = 60.0
"""For all trials of a study; kinds beyond it are guessed from the others."""
TRIED_PIXELS = 2**18
"""Pixels of the images of a tried batch, at most: 256 images of 32 px, or 5 of 224."""
STEPS = 3
LOADED = 3
"""How often one batch is loaded; the quickest counts. The first time imports modules, and draws images of `shapes`."""
READ = 8
"""Images."""
PROBE_OPERATIONS_PER_SECOND = 4e10
"""Of a linear probe on a core, roughly (10 s for 11 rates x 100 epochs of 8,000 x 768 on an AMD EPYC)."""


def try_unknown(runs: Iterable[StudyRun], costs: Costs, machine: Machine, say: Callable[[str], None]) -> None:
    """Try every kind of run of which nothing has ended here, for at most a minute, and let `costs` learn from it.

    What is learned is kept in the cache folder, so that it is not tried again by the next call.
    """
    kept = _Kept(machine)
    untried: dict[str, StudyRun] = {}
    for run in runs:
        name = kind(run.recipe)
        if name in untried or costs.knows(run.recipe):
            continue
        if name in kept.samples:
            costs.learn_trial(run.recipe, kept.samples[name])
        else:
            untried[name] = run
    if untried:
        kinds = f"{len(untried)} kind{'s' * (len(untried) > 1)} of runs"
        say(f"trying a few steps of {kinds} that never ended here, for at most {MOST_SECONDS:.0f} s")
    end = time.monotonic() + 2 * MOST_SECONDS  # the first one starts the server process that all are forked from
    for name, run in sorted(untried.items(), key=lambda pair: not pair[1].recipe.training.epochs):
        if time.monotonic() > end:
            break
        sample = _in_a_process(run.request, machine.threads, end - time.monotonic())
        end = min(end, time.monotonic() + MOST_SECONDS)
        if sample is not None:
            costs.learn_trial(run.recipe, sample)
            kept.add(name, sample)


def _in_a_process(request: Request, threads: int, seconds: float) -> Sample | None:
    """The trial of a run; None where it fails, which the run itself will report, or takes longer than `seconds`."""
    processes = context()
    results, reports = processes.Pipe(duplex=False)
    process = processes.Process(target=_report, args=(request, threads, reports), daemon=True)  # type: ignore[attr-defined]
    process.start()
    reports.close()
    sample = None
    with suppress(EOFError, OSError):
        if wait([results], seconds):
            sample = results.recv()
    process.kill()
    process.join()
    results.close()
    return sample if isinstance(sample, Sample) else None


def _report(request: Request, threads: int, reports: Connection) -> None:
    keep_freed_memory()  # as the run itself
    import torch

    from ssl_bench.recipes.resolve import resolve

    torch.set_num_threads(threads)
    with suppress(Exception, KeyboardInterrupt):  # the run itself says what is wrong
        reports.send(trial(resolve(request)))


def trial(resolved: Resolved) -> Sample:
    """Time per epoch and of everything else, and peak memory, from a few steps."""
    from ssl_bench.runs import machine

    device = machine.choose_device(resolved.machine.device)
    per_epoch, whole = _training(resolved)
    memory = machine.peak_memory_mb(device) if whole else None
    return Sample(per_epoch, START_SECONDS + _evaluation(resolved), memory, tried=True)


def epoch_seconds(resolved: Resolved) -> float:
    """Seconds of an epoch of the recipe's training on this machine, from a few steps on part of a batch."""
    return _training(resolved)[0]


def _training(resolved: Resolved) -> tuple[float, bool]:
    """(seconds of an epoch, whether whole batches were tried)."""
    from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer
    from ssl_bench.method import Progress
    from ssl_bench.runs import machine
    from ssl_bench.runs.building import build_method, seed_initial_weights, views_of_a_run
    from ssl_bench.training.plan import Plan
    from ssl_bench.training.precision import AUTOCAST_DTYPES
    from ssl_bench.training.step import prepare, training_step

    recipe = resolved.recipe
    batch_size = recipe.training.batch_size
    steps = len(resolved.training_split) // batch_size if recipe.training.epochs else 0
    if not steps:
        return 0.0, True
    device = machine.choose_device(resolved.machine.device)
    seed_initial_weights(recipe.training.seed)
    method = build_method(resolved).to(device)
    make_views = views_of_a_run(method, resolved)
    settings = OptimizerSettings(**recipe.optimizer)
    optimizer = build_optimizer(settings, method.parameter_groups())
    tried = min(batch_size, max(2, TRIED_PIXELS // resolved.dataset.image_px**2))
    plan = Plan(
        split=resolved.training_split, batch_size=tried, epochs=1, seed=0, optimizer=settings, device=device,
        autocast_dtype=AUTOCAST_DTYPES.get(recipe.training.precision), workers=0, run_dir=Path(),
        checkpoint_seconds=1e9,
    )  # fmt: skip
    loading = math.inf
    for _ in range(LOADED):
        begun = clocks()
        batch = next(plan.batches(method, make_views))
        loading = min(loading, without_waiting(clocks() - begun))
    prepare(method, [batch], plan)
    method.train()
    times = []
    for step in range(STEPS + 1):  # the first one allocates
        begun = clocks()
        training_step(method, optimizer, batch, Progress(step, STEPS + 1, 0, 1), plan)
        times.append(without_waiting(clocks() - begun))
        if times[0] > MOST_SECONDS / 10:
            break
    computing = min(times[1:] or times)  # a machine that is busy for a moment makes steps many times longer
    workers = machine.choose_workers(resolved.machine.workers, resolved.dataset.image_px)
    seconds = max(computing, loading / workers) if workers else computing + loading
    return seconds * steps * batch_size / tried, tried == batch_size


def _evaluation(resolved: Resolved) -> float:
    """Seconds of evaluating before, during and after training."""
    from ssl_bench.runs import machine
    from ssl_bench.runs.building import build_method

    training = resolved.recipe.training
    device = machine.choose_device(resolved.machine.device)
    networks = build_method(resolved).to(device).networks()
    network = next(iter(networks.values()))
    whole = 2 if training.epochs else 1  # by every evaluator
    quick = training.epochs // training.eval_every * len(networks) if training.eval_every else 0
    per_image = _seconds_per_image(network, resolved.dataset.image_px, device)
    seconds = 0.0
    for dataset in resolved.evaluation_sets:
        images = len(dataset.train) + (len(dataset.test) if dataset.test else 0)
        seconds += images * (per_image + _seconds_to_read(dataset)) * (whole + quick)
        for part in resolved.recipe.evaluators:
            if part.name == "linear-probe":
                trained = len(part.settings["learning_rates"]) * part.settings["epochs"] * len(dataset.train)
                operations = 6.0 * trained * network.feature_dim * len(dataset.classes)
                seconds += whole * operations / PROBE_OPERATIONS_PER_SECOND
    return seconds


def _seconds_per_image(network: Backbone, image_px: int, device: torch.device) -> float:
    """Of a forward pass."""
    import torch

    from ssl_bench.backbone import eval_mode

    images = torch.zeros(max(2, min(256, TRIED_PIXELS // image_px**2)), 3, image_px, image_px, device=device)
    with eval_mode(network), torch.no_grad():
        network(images[:2])
        begun = clocks()
        network(images)
        return without_waiting(clocks() - begun) / len(images)


def _seconds_to_read(dataset: Dataset) -> float:
    """Of an image, without what is done with it, once it was read before."""
    indices = [index * (len(dataset.train) // READ or 1) for index in range(min(READ, len(dataset.train)))]
    seconds = math.inf
    for _ in range(2):
        begun = clocks()
        for index in indices:
            dataset.train.image(index)
        seconds = min(seconds, without_waiting(clocks() - begun))
    return seconds / len(indices)


def without_waiting(spent: Spent) -> float:
    """Seconds without those in which another process had the core."""
    return max(spent.wall - (spent.waited or 0.0), 0.0)


class _Kept:
    """What earlier trials on this machine said, in the cache folder."""

    def __init__(self, machine: Machine) -> None:
        self._path = cache_folder() / "trials.json"
        self._machine = f"{machine.device}, {machine.threads} threads"
        self._all: dict[str, dict[str, list[float | None]]] = {}
        with suppress(OSError, ValueError):
            self._all = json.loads(self._path.read_text())

    @property
    def samples(self) -> dict[str, Sample]:
        """Kind -> what its trial said."""
        found = {}
        with suppress(TypeError, ValueError, AttributeError):  # a file of another version
            for name, (per_epoch, other, memory) in self._all.get(self._machine, {}).items():
                found[name] = Sample(float(per_epoch or 0), float(other or 0), memory, tried=True)
        return found

    def add(self, name: str, sample: Sample) -> None:
        """Keep a trial; it is tried again next time where that is impossible."""
        values = [sample.seconds_per_epoch, sample.other_seconds, sample.memory_mb]
        with suppress(OSError, UserError, TypeError, AttributeError):
            self._all.setdefault(self._machine, {})[name] = values
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(self._all, indent=1).encode())
