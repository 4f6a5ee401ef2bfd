"""The planner's prediction against what the allocator says, under a cap of 4 GB."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu_check.checks import GB, Architecture, Bench, Check, attempt
from benchmarks.gpu_check.noise import built, missing, noise_batch, own_methods, resolved
from ssl_bench.backbone import Backbone
from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer, set_schedule
from ssl_bench.method import Batch, Method, Progress
from ssl_bench.planning.step_memory import predict_step

PART = "memory"
CAP = 4 * GB
TOLERANCE = 0.10


def checks(bench: Bench) -> Iterator[Check]:
    """Each method on each architecture, with activation checkpointing and without."""
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


def compare(name: str, architecture: Architecture, bench: Bench, label: str, *, checkpointing: bool) -> Check:
    """Predicted on the CPU without numbers; measured in the second of two steps on the device."""
    request = resolved(name, architecture, bench)
    if not request.recipe.training.epochs:
        return Check(PART, label, None, "trains nothing")
    settings = OptimizerSettings(**request.recipe.optimizer)
    method = built(request)
    for module in method.modules():
        if isinstance(module, Backbone):
            module.set_activation_checkpointing(checkpointing)
    batch = noise_batch(request, method, bench.sizes.batch, torch.device("cpu"))
    predicted = predict_step(method, settings, [(view.shape, view.dtype) for view in batch.views]).peak
    measured = measured_peak(method.to(bench.device), settings, batch, bench)
    if measured is None:
        return Check(PART, label, None, f"predicted {predicted / 2**20:,.0f} MiB; this device has no allocator to ask")
    ratio = predicted / measured
    words = f"predicted {predicted / 2**20:,.0f}, measured {measured / 2**20:,.0f} MiB, ratio {ratio:.3f}"
    figures = {"predicted": float(predicted), "measured": float(measured), "ratio": ratio}
    return Check(PART, label, abs(ratio - 1) <= TOLERANCE, words, figures=figures)


def measured_peak(method: Method, settings: OptimizerSettings, batch: Batch, bench: Bench) -> int | None:
    """Bytes that tensors had at most in the second step; None where no allocator counts them."""
    optimizer = build_optimizer(settings, method.train().parameter_groups())
    index, labels = batch.index, torch.zeros_like(batch.index)
    moved = Batch(*(_moved(part, bench.device) for part in (batch.views, index, labels)))  # type: ignore[arg-type]
    for number in range(2):
        progress = Progress(number, 100, 0, 10)
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(bench.device)
        set_schedule(optimizer, settings, progress, len(index))
        output = method(moved, progress)
        output.loss.backward()
        method.before_optimizer(progress)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            method.update(output.carry, progress)
        del output
    return allocator_peak(bench.device)


def _moved(part: object, device: torch.device) -> object:
    if isinstance(part, tuple):
        return tuple(_moved(one, device) for one in part)
    assert isinstance(part, torch.Tensor)
    return part.to(device)


def allocator_peak(device: torch.device) -> int | None:
    """`max_memory_allocated`; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
