"""Which precision a run gets: fp32, or bf16 autocast where a short measurement shows that it is faster."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from ssl_bench.errors import UserError
from ssl_bench.evaluation.speed import BUSY, LONG_PASS_SECONDS, Stopwatch, Timing, cpu_share
from ssl_bench.method import Batch, Method, Progress, StepOutput
from ssl_bench.records.recipe import MachineSettings
from ssl_bench.runs.device_name import device_name
from ssl_bench.system.files import cache_folder, write_atomically
from ssl_bench.training.plan import Plan
from ssl_bench.training.precision import AUTOCAST_DTYPES
from ssl_bench.training.step import prepare

WORTH = 1.1
"""bf16 must be this many times faster to be chosen: it costs accuracy, and noise must not decide."""
REPEATS = 3
AS_PLAIN = MachineSettings()


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
        return AUTOCAST_DTYPES[self.name]


def choose_precision(
    asked: str, method: Method, batch: Batch, plan: Plan, machine: MachineSettings = AS_PLAIN
) -> Precision:
    """Resolve "auto" by timing `method.step` and its backward pass on `batch` at both precisions.

    The measurement is kept in the cache folder, so that a run done again here decides the same. Parameters, buffers
    and gradients are left as they were. Raises `UserError` for bf16 on a card that only emulates it.
    """
    if plan.device.type == "cuda":
        native = card_has_bf16(plan.device)
        if asked == "bf16" and not native:
            raise UserError(
                f"training.precision = 'bf16': {device_name(plan.device)} only emulates bf16; "
                "give --set training.precision=fp32, or fp16"
            )
        if asked == "auto" and not native:
            return Precision("fp32", "auto: bf16 is only emulated on this card", None)
    emulated = plan.device.type == "cpu" and not cpu_has_bf16()
    if asked != "auto":
        reason = "asked for; this CPU only emulates it, slowly" if emulated and asked != "fp32" else "asked for"
        return Precision(asked, reason, _step_seconds(method, batch, plan, asked))
    if emulated:
        reason = "auto: this CPU has no instructions for bf16"
        return Precision("fp32", reason, _step_seconds(method, batch, plan, "fp32"))
    memory = cache_folder() / "precision.json"
    key = _situation(method, batch, plan, machine)
    known = _read(memory)
    reason = "auto: measured here"
    if key in known:
        seconds = known[key]
    else:
        seconds, share = _measure(method, batch, plan)
        if plan.device.type == "cpu" and share < BUSY:  # a disturbed timing decides nothing; the next run looks again
            reason = f"auto: the machine is busy (the process got {share:.0%} of the CPU time of its threads), so that "
            return Precision("fp32", f"{reason}a measurement of bf16 would say nothing", seconds["fp32"])
        _remember(memory, {**known, key: seconds})
    ratio = seconds["fp32"] / seconds["bf16"]
    name = "bf16" if ratio >= WORTH else "fp32"
    reason += f", fp32 takes {ratio:.2f} times as long as bf16; bf16 is chosen from {WORTH} on"
    return Precision(name, reason, seconds[name])


def card_has_bf16(device: torch.device) -> bool:
    """Cards from Ampere on (compute capability 8.0); earlier ones emulate it."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def cpu_has_bf16() -> bool:
    """Whether the CPU's matrix products can use bf16; without such instructions they are emulated, many times slower.

    True where torch cannot tell: then a measurement decides.
    """
    known = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return not known or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _situation(method: Method, batch: Batch, plan: Plan, machine: MachineSettings) -> str:
    """What the speed depends on: device, torch, threads, the method's layers and tensors, the views' shapes, and how
    the networks are computed."""
    parts = [plan.device.type, device_name(plan.device), torch.__version__, str(torch.get_num_threads()), str(method)]
    parts += [f"{name}{tuple(value.shape)}{value.dtype}{value.stride()}" for name, value in method.state_dict().items()]
    parts += [str(tuple(view.shape)) for view in batch.views]
    parts += [f"{name} {bool(getattr(machine, name))}" for name in ("tf32", "compile", "activation_checkpointing")]
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


def first_step(method: Method, batch: Batch, plan: Plan, asked: str) -> StepOutput:
    """What the first step gives, at the precision that is asked for ("auto": fp32); buffers are left as they were.

    The batch was planned for that precision and may not fit at a higher one.
    """
    trial = dataclasses.replace(plan, autocast_dtype=AUTOCAST_DTYPES.get(asked))
    with _buffers_kept(method):
        prepare(method, [batch], trial)
        with trial.passes(0).autocast():
            return method.train().step(batch, _start(trial))


def _step_seconds(method: Method, batch: Batch, plan: Plan, name: str) -> float:
    """Median of one precision's passes."""
    return median(one.wall for one in _timings(method, batch, plan, [name])[name])


def _measure(method: Method, batch: Batch, plan: Plan) -> tuple[dict[str, float], float]:
    """(median seconds of a pass at each precision, share of CPU time that the process got)."""
    timings = _timings(method, batch, plan, ["fp32", "bf16"])
    share = cpu_share([one for each in timings.values() for one in each], torch.get_num_threads())
    return {name: median(one.wall for one in each) for name, each in timings.items()}, share


def _timings(method: Method, batch: Batch, plan: Plan, names: list[str]) -> dict[str, list[Timing]]:
    """Passes at each precision in turn, so that load that comes and goes slows them alike; warm-ups are left out."""
    method.train()
    timings: dict[str, list[Timing]] = {name: [] for name in names}
    with _buffers_kept(method):
        prepare(method, [batch], plan)
        for _ in range(REPEATS + 1):
            for name in names:
                timings[name].append(_one_pass(method, batch, plan, name))
            if any(times[-1].wall > LONG_PASS_SECONDS for times in timings.values()):
                break  # one look is enough for a step of this size
    return {name: times[1:] or times for name, times in timings.items()}


def _one_pass(method: Method, batch: Batch, plan: Plan, name: str) -> Timing:
    """One forward and backward pass; gradients are dropped again."""
    trial = dataclasses.replace(plan, autocast_dtype=AUTOCAST_DTYPES[name])
    with Stopwatch(plan.device) as watch:
        with trial.passes(0).autocast():
            loss = method.step(batch, _start(plan)).loss
        loss.backward()  # type: ignore[no-untyped-call]
    method.zero_grad(set_to_none=True)
    return watch.timing


def _start(plan: Plan) -> Progress:
    return Progress(0, max(1, plan.total_steps), 0, max(1, plan.epochs))


@contextmanager
def _buffers_kept(method: Method) -> Iterator[None]:
    """Running statistics of batch norm move in a forward pass; afterwards they are as before."""
    before = {key: value.clone() for key, value in method.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for key, value in method.named_buffers():
                value.copy_(before[key])
