"""Every registered method trains: the shared loop, on every architecture, with its memory and rate."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu_check.checks import Architecture, Bench, Check, attempt
from benchmarks.gpu_check.noise import built, low_precisions, methods, missing, own_methods, resolved
from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.training.loop import StepReport, train
from ssl_bench.training.plan import Plan
from ssl_bench.training.state import TrainingState

PART = "training"


class _LongEnough(BaseException):
    """Ends a training before the loop saves it, which it does at the last step and at any other error."""


def checks(bench: Bench) -> Iterator[Check]:
    """Each method on each architecture in fp32; then our own on the first one in the lower precisions."""
    for architecture in bench.sizes.architectures:
        for name in methods(bench):
            label = f"{name} on {architecture.name}"
            if lacking := missing(name):
                yield Check(PART, label, None, f"not tried: {lacking}")
                continue
            yield attempt(PART, label, partial(train_some, name, architecture, bench, label))
            bench.clear()
    first = bench.sizes.architectures[0]
    for precision, dtype in low_precisions(bench.device).items():
        for name in own_methods(bench):
            label = f"{name} on {first.name}, {precision}"
            yield attempt(PART, label, partial(train_some, name, first, bench, label, dtype))
            bench.clear()


def train_some(
    name: str, architecture: Architecture, bench: Bench, label: str, dtype: torch.dtype | None = None
) -> Check:
    """`steps` optimizer steps, or as many as fit into the time.

    Passes where every loss is a number, and where not all steps were left out because gradients overflowed in fp16.
    """
    request = resolved(name, architecture, bench)
    if not request.recipe.training.epochs:
        return Check(PART, label, None, "trains nothing")
    losses: list[float] = []
    times = [time.monotonic()]
    state = TrainingState()

    def report(step: StepReport) -> None:
        losses.append(step.logs.get("loss", math.nan))  # which is not logged where it is infinite in fp16
        times.append(time.monotonic())
        late = times[-1] - times[0] > bench.sizes.seconds_each and state.step > state.scaling.skipped_steps
        if late or step.step == step.total_steps:
            raise _LongEnough

    with tempfile.TemporaryDirectory() as folder, suppress(_LongEnough):
        run(request, bench, Path(folder), report, dtype, state)
    peak = torch.cuda.max_memory_allocated(bench.device) / 2**20 if bench.device.type == "cuda" else 0.0
    after_first = times[1:]  # the first step loads kernels
    rate = (
        (len(after_first) - 1) * bench.sizes.batch / max(1e-9, after_first[-1] - after_first[0]) if after_first else 0
    )
    words = f"{len(losses)} steps of {bench.sizes.batch} images, {rate:.1f} images/s with making the views"
    words += f", {peak:,.0f} MiB" if peak else ""
    words += f", loss {losses[0]:.3f} to {losses[-1]:.3f}" if losses else ""
    skipped = state.scaling.skipped_steps
    words += f", {skipped} steps skipped because gradients overflowed" if skipped else ""
    passed = state.step > skipped and all(map(math.isfinite, losses))
    return Check(PART, label, passed, words, figures={"images_per_second": rate, "peak_mib": peak})


def run(
    request: Resolved,
    bench: Bench,
    folder: Path,
    report: Callable[[StepReport], None],
    dtype: torch.dtype | None,
    state: TrainingState,
) -> None:
    """Train through the shared loop, which moves `state`, under autocast of `dtype` (fp16 scaled) or in fp32."""
    settings = OptimizerSettings(**request.recipe.optimizer)
    method = built(request).to(bench.device)
    plan = Plan(
        split=request.training_split,
        batch_size=bench.sizes.batch,
        epochs=1,
        seed=0,
        optimizer=settings,
        device=bench.device,
        autocast_dtype=dtype,
        workers=0,
        run_dir=folder,
        checkpoint_seconds=1e9,
    )
    optimizer = build_optimizer(settings, method.parameter_groups())
    train(method, method.make_views(request.method_config), optimizer, plan, state, report)
