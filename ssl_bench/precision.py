"""Which precision a run gets: fp32, or bf16 autocast where a short measurement on this machine shows that it pays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from ssl_bench.cache import cache_folder
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, Method, Progress, StepOutput
from ssl_bench.record import write_atomically
from ssl_bench.training import Plan, autocast

WORTH = 1.1
"""bf16 must be this many times faster to be chosen: it costs accuracy, and noise must not decide."""
REPEATS = 3


@dataclasses.dataclass(frozen=True)
class Precision:
    """The chosen precision in words for the record, and what the loop needs of it."""

    name: str
    reason: str
    step_seconds: float | None
    """Median of one forward and backward pass at the chosen precision, where it was measured."""

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What autocast is given; None for fp32."""
        return torch.bfloat16 if self.name == "bf16" else None


def choose_precision(asked: str, method: Method, batch: Batch, plan: Plan) -> Precision:
    """Resolve "auto" by timing `method.step` and its backward pass on `batch` at both precisions.

    The measurement is kept in the cache folder, so that a run done again here decides the same. Parameters, buffers
    and gradients are left as they were. Raises `UserError` for bf16 on a card that only emulates it.
    """
    if plan.device.type == "cuda":
        native = torch.cuda.get_device_capability(plan.device) >= (8, 0)
        if asked == "bf16" and not native:
            raise UserError(
                f"training.precision = 'bf16': {torch.cuda.get_device_name(plan.device)} only emulates bf16; "
                "give --set training.precision=fp32"
            )
        if asked == "auto" and not native:
            return Precision("fp32", "auto: bf16 is only emulated on this card", None)
    if asked != "auto":
        return Precision(asked, "asked for", _step_seconds(method, batch, plan, asked))
    memory = cache_folder() / "precision.json"
    key = _situation(method, batch)
    known = _read(memory)
    if key not in known:
        known[key] = {name: _step_seconds(method, batch, plan, name) for name in ("fp32", "bf16")}
        _remember(memory, known)
    seconds = known[key]
    ratio = seconds["fp32"] / seconds["bf16"]
    name = "bf16" if ratio >= WORTH else "fp32"
    reason = f"auto: measured here, fp32 takes {ratio:.2f} times as long as bf16; bf16 is chosen from {WORTH} on"
    return Precision(name, reason, seconds[name])


def _situation(method: Method, batch: Batch) -> str:
    """What the speed depends on: hardware, torch, threads, the method's tensors and the views' shapes."""
    parts = [platform.processor(), platform.machine(), torch.__version__, str(torch.get_num_threads())]
    parts += [f"{name}{tuple(value.shape)}" for name, value in method.state_dict().items()]
    parts += [str(tuple(view.shape)) for view in batch.views]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _read(memory: Path) -> dict[str, dict[str, float]]:
    try:
        known: dict[str, dict[str, float]] = json.loads(memory.read_text())
        return {key: value for key, value in known.items() if value["fp32"] > 0 and value["bf16"] > 0}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remember(memory: Path, known: dict[str, dict[str, float]]) -> None:
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, json.dumps(known, indent=1).encode())
    except (OSError, UserError):
        return  # measured anew next time


def first_step(method: Method, batch: Batch, plan: Plan) -> StepOutput:
    """What the first step gives, in fp32; buffers are left as they were."""
    with _buffers_kept(method):
        return method.train().step(batch, _start(plan))


def _step_seconds(method: Method, batch: Batch, plan: Plan, name: str) -> float:
    trial = dataclasses.replace(plan, autocast_dtype=torch.bfloat16 if name == "bf16" else None)
    method.train()
    times = []
    with _buffers_kept(method):
        for _ in range(REPEATS + 1):
            begun = time.perf_counter()
            with autocast(trial):
                loss = method.step(batch, _start(plan)).loss
            loss.backward()  # type: ignore[no-untyped-call]
            if plan.device.type == "cuda":
                torch.cuda.synchronize(plan.device)
            times.append(time.perf_counter() - begun)
            method.zero_grad(set_to_none=True)
            if times[-1] > 20:  # one look is enough for a step of this size
                break
    return median(times[1:] or times)


def _start(plan: Plan) -> Progress:
    return Progress(0, max(1, plan.total_steps), 0, max(1, plan.epochs))


@contextmanager
def _buffers_kept(method: Method) -> Iterator[None]:
    """Running statistics of batch norm move in a forward pass; afterwards they are as before."""
    before = {key: value.clone() for key, value in method.named_buffers()}
    yield
    with torch.no_grad():
        for key, value in method.named_buffers():
            value.copy_(before[key])
