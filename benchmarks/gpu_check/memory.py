"""The planner's prediction, made on the CPU without numbers, against the allocator's in the second of two steps.

Under a cap of 4 GB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from benchmarks.gpu_check.checks import GB, Architecture, Bench, Check, attempt
from benchmarks.gpu_check.noise import built, low_precisions, missing, noise_batch, own_methods, resolved
from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer, set_schedule
from ssl_bench.method import Batch, Method, Progress
from ssl_bench.planning.devices import AMPERE, PASCAL, Device
from ssl_bench.planning.step_memory import AS_A_WHOLE, HowToStep, predict_step, view_shapes
from ssl_bench.runs.building import recompute_activations
from ssl_bench.runs.planned_step import asked_of
from ssl_bench.runs.predicting import StepPredictor
from ssl_bench.training.micro_batches import Passes, add_gradients
from ssl_bench.training.precision import AUTOCAST_DTYPES

PART = "memory"
CAP = 4 * GB
TOLERANCE = 0.10
PLANNED = "simclr"
"""The method of the large batch: its gradients are cached, which is the longest way."""


def checks(bench: Bench) -> Iterator[Check]:
    """Each method on each architecture, with activation checkpointing and without; one large batch as it is planned."""
    if bench.device.type == "cuda":
        total = torch.cuda.get_device_properties(bench.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, CAP / total), bench.device)
    for architecture in bench.sizes.architectures:
        for name in own_methods(bench):
            if missing(name):
                continue
            for checkpointing in (False, True):
                label = f"{name} on {architecture.name}" + (", checkpointing" if checkpointing else "")
                work = partial(compare, name, architecture, bench, label, checkpointing=checkpointing)
                yield attempt(PART, label, work)
                bench.clear()
    first = bench.sizes.architectures[0]
    yield attempt(PART, f"{PLANNED} on {first.name} as planned", partial(compare_planned, first, bench))


def compare(name: str, architecture: Architecture, bench: Bench, label: str, *, checkpointing: bool) -> Check:
    """A whole batch in fp32."""
    request = resolved(name, architecture, bench)
    if not request.recipe.training.epochs:
        return Check(PART, label, None, "trains nothing")
    method = built(request)
    recompute_activations(method, checkpointing)
    batch = noise_batch(request, method, bench.sizes.batch, torch.device("cpu"))
    settings = OptimizerSettings(**request.recipe.optimizer)
    predicted = predict_step(method, settings, [(view.shape, view.dtype) for view in batch.views]).peak
    measured = measured_peak(method, settings, batch.to(bench.device), bench, AS_A_WHOLE)
    return _verdict(label, predicted, measured)


def compare_planned(architecture: Architecture, bench: Bench) -> Check:
    """What the planner chooses for a large batch: precision, checkpointing and micro-batches together."""
    sizes = replace(bench.sizes, batch=bench.sizes.planned_batch)
    request = resolved(PLANNED, architecture, replace(bench, sizes=sizes))
    device = Device("the cap", CAP, AMPERE if "bf16" in low_precisions(bench.device) else PASCAL)
    predictor = StepPredictor(request, batch_on_device=False)
    way, _ = predictor.fastest(asked_of(request, device, predictor.least), device.usable)
    label = f"{PLANNED} on {architecture.name}, {sizes.batch} images as planned"
    if way is None:
        return Check(PART, label, False, f"nothing fits into {CAP / GB:.0f} GB")
    method = built(request)
    recompute_activations(method, way.choice.checkpointing)
    shapes = view_shapes(method, method.make_views(request.method_config), sizes.batch, sizes.image_px)
    batch = Batch(tuple(torch.rand(shape).to(dtype) for shape, dtype in shapes), torch.arange(sizes.batch))
    how = HowToStep(way.choice.micro_batch, AUTOCAST_DTYPES[way.choice.precision], batch_on_device=False)
    measured = measured_peak(method, OptimizerSettings(**request.recipe.optimizer), batch, bench, how)
    return _verdict(label, way.memory.peak, measured, f"{way.choice.words}: ")


def _verdict(label: str, predicted: int, measured: int | None, words: str = "") -> Check:
    words += f"predicted {predicted / 2**20:,.0f}"
    if measured is None:
        return Check(PART, label, None, f"{words} MiB; this device has no allocator to ask")
    ratio = predicted / measured
    words += f", measured {measured / 2**20:,.0f} MiB, ratio {ratio:.3f}"
    figures = {"predicted": float(predicted), "measured": float(measured), "ratio": ratio}
    return Check(PART, label, abs(ratio - 1) <= TOLERANCE, words, figures=figures)


def measured_peak(
    method: Method, settings: OptimizerSettings, batch: Batch, bench: Bench, how: HowToStep
) -> int | None:
    """Bytes that tensors had at most in the second step; None where no allocator counts them."""
    optimizer = build_optimizer(settings, method.to(bench.device).train().parameter_groups())
    passes = Passes(bench.device, "gpu-check", how.micro_batch, how.autocast_dtype)
    for number in range(2):
        progress = Progress(number, 100, 0, 10)
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(bench.device)
        set_schedule(optimizer, settings, progress, len(batch.index))
        output = add_gradients(method, batch, progress, passes)
        method.before_optimizer(progress)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            method.update(output.carry, progress)
        del output
    return allocator_peak(bench.device)


def allocator_peak(device: torch.device) -> int | None:
    """`max_memory_allocated`; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
