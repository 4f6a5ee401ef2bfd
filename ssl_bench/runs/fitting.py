"""How a run's step fits into the memory there is: planned before it trains, in smaller parts where it runs out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ssl_bench.blocks.optimizers import OptimizerSettings
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, Method, Progress
from ssl_bench.planning.choices import Asked
from ssl_bench.planning.devices import CONTEXT, CPU_PROCESS, GB, Device, parse_memory
from ssl_bench.planning.live_memory import LiveMemory
from ssl_bench.planning.step_memory import view_shapes
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.records.cost import MemoryRecord
from ssl_bench.records.recipe import MachineSettings
from ssl_bench.registry.failures import in_words
from ssl_bench.runs.building import recompute_activations
from ssl_bench.runs.planned_step import asked_of
from ssl_bench.runs.predicting import StepPredictor
from ssl_bench.training.micro_batches import has_batch_norm, smallest_micro_batch
from ssl_bench.training.plan import Plan

TRIED_IMAGES = 2
"""Forward pass that is really done for the upper bound."""
BACKWARD = 1.5
"""Activations and what the backward pass adds to them are at most so many times what the forward pass leaves."""
CLEARLY = 0.5
"""Of the usable memory: an upper bound below it needs no prediction."""
MB = 2**20


def limited_device(device: torch.device, memory: str | None) -> Device:
    """The memory that a run may use: `--memory`, or what is free now. A limit also caps what CUDA hands out.

    Raises `UserError` for an amount that cannot be read.
    """
    limit = None if memory is None else parse_memory(memory)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        if limit is None:
            mine = free + torch.cuda.memory_reserved(device) + CONTEXT  # of this process, which is there already
            return Device(torch.cuda.get_device_name(device), min(mine, total))
        torch.cuda.set_per_process_memory_fraction(min(1.0, max(0, limit - CONTEXT) / total), device)
        return Device(torch.cuda.get_device_name(device), min(limit, total))
    free = free_ram() + CPU_PROCESS  # this process is there already
    return Device("the CPU", free if limit is None else limit, is_cpu=True)


def free_ram() -> int:
    """Bytes that the system can still give: of the machine, and of the container's limit where there is one."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        free = free if limit == "max" else min(free, max(0, int(limit) - used))
    except (OSError, ValueError):
        pass
    return free


def fit(resolved: Resolved, method: Method, plan: Plan) -> MemoryRecord:
    """Decide how a step is done. A cheap upper bound comes first; a prediction only where that is near the limit.

    Raises `UserError` where nothing fits into a limit that the user gave.
    """
    memory = resolved.machine.memory
    device = limited_device(plan.device, memory)
    asked = asked_of(resolved, device, 2 if has_batch_norm(method) else 1)
    as_asked = MemoryRecord(
        memory_mb=round(device.memory / MB, 1),
        usable_mb=round(device.usable / MB, 1),
        micro_batch=asked.micro_batch,
        activation_checkpointing=bool(asked.checkpointing),
    )
    if resolved.machine.compile:
        return as_asked.model_copy(update={"note": "not planned: compiled networks are not predicted"})
    bound = upper_bound(resolved, method, plan)
    if bound is not None and bound <= CLEARLY * device.usable:
        return as_asked.model_copy(update={"predicted_peak_mb": round(bound / MB, 1), "predicted_by": "upper bound"})
    try:
        return _predicted(resolved, method, plan, device, asked, as_asked)
    except UserError as error:
        if memory is not None:
            raise
        return as_asked.model_copy(update={"note": str(error)})
    except Exception as error:  # planning ends no run: what is wrong shows when the first batch is tried
        return as_asked.model_copy(update={"note": f"a step could not be predicted ({in_words(error)})"})


def _predicted(
    resolved: Resolved, method: Method, plan: Plan, device: Device, asked: Asked, as_asked: MemoryRecord
) -> MemoryRecord:
    on_cpu = plan.device.type == "cpu"
    predictor = StepPredictor(resolved, batch_on_device=device.is_cpu, method=method if on_cpu else None)
    way, tried = predictor.fastest(asked, device.usable)
    if way is None:
        least = predictor.smallest(asked, tried)
        needed = device.with_usable(least.memory.peak) / GB
        raise UserError(
            f"a step of {resolved.recipe.method.name} on {resolved.recipe.arch} does not fit into "
            f"{device.memory / GB:.1f} GB. The smallest way needs {needed:.1f} GB ({least.choice.words}): give "
            f"--memory {needed + 0.05:.1f}GB or more, a smaller --arch, or smaller images"
        )
    return as_asked.model_copy(
        update={
            "predicted_peak_mb": round(way.memory.peak / MB, 1),
            "predicted_by": "measured small steps" if predictor.note else "prediction",
            "micro_batch": way.choice.micro_batch,
            "activation_checkpointing": way.choice.checkpointing,
            "note": predictor.exactness(way.choice.micro_batch).reason,
        }
    )


def upper_bound(resolved: Resolved, method: Method, plan: Plan) -> int | None:
    """Bytes that a step of the whole batch hardly exceeds, from a forward pass of two images; None: it cannot tell."""
    images = min(TRIED_IMAGES, plan.batch_size)
    norms = {name: value.clone() for name, value in method.named_buffers()}
    tracker = LiveMemory()
    weights = [*method.parameters(), *method.buffers()]
    tracker.add(weights, "weights")
    try:
        make_views = method.make_views(resolved.method_config)
        shapes = view_shapes(method, make_views, images, resolved.dataset.image_px)
        with torch.random.fork_rng(devices=[]), tracker:
            views = tuple(torch.zeros(shape, dtype=dtype, device=plan.device) for shape, dtype in shapes)
            numbers = torch.zeros(images, dtype=torch.long, device=plan.device)
            method.train().step(Batch(views, numbers, numbers), Progress(0, plan.total_steps, 0, plan.epochs))
    except Exception:  # a step that needs more images, or what `prepare` makes: a prediction has to tell
        return None
    finally:
        with torch.no_grad():
            for name, value in method.named_buffers():
                value.copy_(norms[name])
    activations = tracker.at_peak["activations"] * BACKWARD * plan.batch_size / images
    return held_between_steps(method, resolved.recipe.optimizer) + 2 * _trained(method) + int(activations)


def held_between_steps(method: Method, optimizer: Mapping[str, Any]) -> int:
    """Bytes of the method's weights and buffers and of its optimizer's moments; `optimizer` as a recipe has it."""
    moments = 2 if OptimizerSettings(**optimizer).name == "adamw" else 1
    return sum(one.nbytes for one in (*method.parameters(), *method.buffers())) + moments * _trained(method)


def _trained(method: Method) -> int:
    """Bytes of the weights that have gradients."""
    return sum(one.nbytes for one in method.parameters() if one.requires_grad)


def memory_line(memory: MemoryRecord, batch_size: int) -> str:
    """E.g. "about 900 MB of 22.1 GB; whole batches"."""
    figure = "unknown" if memory.predicted_peak_mb is None else _amount(memory.predicted_peak_mb)
    words = {"upper bound": "at most about ", "": ""}.get(memory.predicted_by, "about ")
    parts = "whole batches"
    if memory.micro_batch is not None and memory.micro_batch < batch_size:
        parts = f"{memory.micro_batch} of {batch_size} images at once"
    recomputed = ", activations computed again in the backward pass" if memory.activation_checkpointing else ""
    note = f" ({memory.note})" if memory.note else ""
    return f"{words}{figure} of {_amount(memory.memory_mb)}; {parts}{recomputed}{note}"


def _amount(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f} GB" if megabytes >= 1024 else f"{megabytes:.0f} MB"


def smaller(memory: MemoryRecord, resolved: Resolved, method: Method, plan: Plan, reason: str) -> MemoryRecord:
    """The next way that takes less memory: activations again, then micro-batches of half the images.

    Raises `UserError` at the last one, or where the user's own settings leave none.
    """
    machine = resolved.machine
    if machine.activation_checkpointing is None and not memory.activation_checkpointing:
        try:
            recompute_activations(method, True)
            words = "activations are computed again in the backward pass"
            return _noted(memory, f"{reason}: {words}", {"activation_checkpointing": True})
        except UserError:
            recompute_activations(method, False)
    fewer = max(-(-plan.images_at_once // 2), smallest_micro_batch(method, plan.batch_size))
    if machine.micro_batch is None and fewer < plan.images_at_once:
        return _noted(memory, f"{reason}: {fewer} images at once", {"micro_batch": fewer})
    fixed = [
        f"--set machine.{name}={getattr(machine, name)}".lower()
        for name in ("micro_batch", "activation_checkpointing")
        if getattr(machine, name) is not None
    ]
    advice = f"leave out {' and '.join(fixed)}, or give" if fixed else "give"
    raise UserError(f"{reason}, and there is no smaller way: {advice} a smaller --arch or smaller views")


def as_set(memory: MemoryRecord, machine: MachineSettings) -> MemoryRecord:
    """The decision of an earlier session with what the user sets now."""
    given = {
        name: getattr(machine, name)
        for name in ("micro_batch", "activation_checkpointing")
        if getattr(machine, name) is not None
    }
    return memory.model_copy(update=given)


def as_planned(machine: MachineSettings, memory: MemoryRecord | None) -> MachineSettings:
    """With what the plan decided about activations in place of what was left to it."""
    recomputed = memory is not None and memory.activation_checkpointing
    return machine.model_copy(update={"activation_checkpointing": recomputed})


def _noted(memory: MemoryRecord, words: str, update: dict[str, object]) -> MemoryRecord:
    return memory.model_copy(update={**update, "stepped_down": (*memory.stepped_down, words)})
