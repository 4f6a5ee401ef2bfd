"""The training loop, shared by all methods.

Order and augmentation are functions of (seed, epoch, index) and the global random state is set from (seed, step)
before every step, so a run that stops and resumes is the uninterrupted one, whatever the worker count: bitwise on a
CPU, and elsewhere up to the rounding of kernels that are not deterministic.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ssl_bench.blocks.optimizers import OptimizerSettings, set_schedule
from ssl_bench.dataset import Split
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, MakeViews, Method, Progress
from ssl_bench.registry.failures import in_one_message
from ssl_bench.system.cpu_time import Spent, clocks
from ssl_bench.system.hints import resume_command
from ssl_bench.system.signals import stop_requests
from ssl_bench.training.batches import EpochOrder, Order, SinglePass, batches, steps_per_epoch
from ssl_bench.training.checkpoint import Checkpoint, last_good, save_checkpoint
from ssl_bench.training.collapse_doctor import DIVERGED, Doctor, RunFailed, refuse_nan
from ssl_bench.training.metrics_log import MetricsLog, sent_to_host
from ssl_bench.training.micro_batches import Passes, add_gradients
from ssl_bench.training.out_of_memory import (
    DoesNotFit,
    HalfDone,
    NormStatistics,
    half_done_where_it_does_not_fit,
    in_words,
    undone_where_it_does_not_fit,
)
from ssl_bench.training.precision import LossScaling, ScalingState

LOSS = "loss of the step"
"""Its name among the values that are read, beside what a method logs as its loss."""


class Stopped(Exception):
    """The user or the system asked the run to stop; everything up to `step` is saved in `checkpoint`."""

    def __init__(self, step: int, total_steps: int, checkpoint: Path | None) -> None:
        super().__init__(f"stopped at step {step} of {total_steps}")
        self.step, self.total_steps, self.checkpoint = step, total_steps, checkpoint


@dataclass
class TrainingState:
    """What a resumed run needs besides the tensors."""

    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """CPU time of the main process during `seconds`."""
    waited_seconds: float | None = 0.0
    """In which its main thread waited for a core; None where the system does not tell."""
    resumed: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the logged values over the current epoch."""
    counted: int = 0
    final_logs: dict[str, float] = field(default_factory=dict)
    """Means over the last complete epoch, and the last probe of the features."""
    probed: dict[str, float] = field(default_factory=dict)
    """The doctor's last probe of the features."""
    lasting: dict[str, int] = field(default_factory=dict)
    """Signs of a collapse that are present now, by their cause: for how many steps."""
    micro_batches: dict[str, int] = field(default_factory=dict)
    """Steps done in micro-batches, by the largest number of images in one; a resumed run may use others."""
    scaling: ScalingState = field(default_factory=ScalingState)
    """Of the loss in fp16."""
    peak_memory_mb: float = 0.0
    """Highest memory of training on a card, without what `after_step` takes; in 2^20 bytes, 0 on a CPU."""

    def note_peak(self, device: torch.device) -> None:
        """Take the highest memory of a card since `count_peak_anew` into account."""
        if device.type == "cuda":
            self.peak_memory_mb = max(self.peak_memory_mb, torch.cuda.max_memory_allocated(device) / 2**20)


def count_peak_anew(device: torch.device) -> None:
    """What a card had in memory before counts no more."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


@dataclass(frozen=True)
class StepReport:
    """The progress display's input after every step."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    logs: dict[str, float]
    images_per_second: float
    seconds_left: float
    warning: str = ""
    """Logged once: the doctor's warning of a sign that lasts, or a problem of the worker processes."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything the loop needs to know; decided before it starts."""

    split: Split
    batch_size: int
    epochs: int
    seed: int
    optimizer: OptimizerSettings
    device: torch.device
    autocast_dtype: torch.dtype | None
    workers: int
    run_dir: Path
    checkpoint_seconds: float
    micro_batch: int | None = None
    """Most images in a forward pass; None: the whole batch."""

    @property
    def images_at_once(self) -> int:
        """Most images in a forward pass."""
        return min(self.batch_size, self.micro_batch or self.batch_size)

    def passes(self, step: int) -> Passes:
        """How the passes of a step are computed."""
        return Passes(self.device, f"step-{self.seed}-{step}", self.micro_batch, self.autocast_dtype)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return steps_per_epoch(len(self.split), self.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def batches(
        self,
        method: Method,
        make_views: MakeViews,
        first_step: int = 0,
        note: Callable[[str], None] = lambda line: None,
    ) -> Iterator[Batch]:
        """Batches from `first_step` to the end, on the host; `note` as in `workers.from_workers`."""
        order = EpochOrder(len(self.split), self.batch_size, self.epochs, self.seed, first_step)
        return self._batches(order, method, make_views, note)

    def single_pass(self, method: Method, make_views: MakeViews) -> Iterator[Batch]:
        """Every training image once, in order, as `Method.prepare` sees them; on the host."""
        return self._batches(SinglePass(len(self.split), self.images_at_once, self.seed), method, make_views)

    def _batches(
        self, order: Order, method: Method, make_views: MakeViews, note: Callable[[str], None] = lambda line: None
    ) -> Iterator[Batch]:
        return batches(
            self.split,
            make_views,
            order,
            batch_views=method.draw_over_batch(),
            needs_labels=method.needs_labels,
            workers=self.workers,
            pinned=self.device.type == "cuda",
            note=note,
        )


def refuse(plan: Plan, step: int, error: DoesNotFit) -> Plan:
    """No smaller way to do a step."""
    raise error


def train(
    method: Method,
    make_views: MakeViews,
    optimizer: torch.optim.Optimizer,
    plan: Plan,
    state: TrainingState,
    report: Callable[[StepReport], None] = lambda _: None,
    after_step: Callable[[int], None] | None = None,
    log: Callable[[int, Mapping[str, float]], None] = lambda step, values: None,
    smaller: Callable[[Plan, int, DoesNotFit], Plan] = refuse,
) -> TrainingState:
    """Train from `state.step` to the end of the plan; the last step is saved as well.

    `after_step` gets the number of steps done, before a checkpoint of that step; its time and a card's memory in it do
    not count as training.
    `log` gets them with the step's values, for loggers. `smaller` gets the plan and the step that did not fit into
    memory, and returns a plan that takes less, with which the step is done again, or raises `UserError`.
    Raises `Stopped` after a signal, with everything saved; `HalfDone` where memory runs out while a step moves the
    method, which then has to be restored from the last checkpoint; `RunFailed` when the loss is not finite or the run
    collapses, with the last good checkpoint kept; and, after saving, any error between two steps (an image that cannot
    be read, a worker process that died).
    """
    checkpoints = plan.run_dir / "checkpoints"
    count_peak_anew(plan.device)
    if state.step == 0 and plan.total_steps:
        try:
            prepare(method, plan.single_pass(method, make_views), plan)
        except UserError as error:  # what it moved is gone with the process: a resumed run prepares from the start
            raise UserError(
                f"{error}. Nothing is trained yet. When the cause is gone, resume with: {resume_command(plan.run_dir)}"
            ) from error
    warmup_steps = plan.optimizer.warmup_steps(plan.steps_per_epoch)
    doctor = Doctor.of(method, plan.batch_size, plan.total_steps, warmup_steps)
    last_saved, begun = time.monotonic(), clocks()
    before, first_step = Spent(state.seconds, state.cpu_seconds, state.waited_seconds), state.step
    saved_step, step_is_whole = state.step, True
    notes: list[str] = []
    scaling = LossScaling(plan.device, plan.autocast_dtype, state.scaling)
    statistics = NormStatistics(method)
    method.train()
    with stop_requests() as stop_requested, MetricsLog(plan.run_dir, state.step) as metrics:

        def save() -> Path:
            nonlocal last_saved, saved_step
            metrics.flush()
            refuse_nan(method, state.step)
            state.note_peak(plan.device)
            path = save_checkpoint(
                checkpoints, state.step, method.state_dict(), optimizer.state_dict(), asdict(state),
                suspect=doctor.suspects(state.step, state.lasting),
            )  # fmt: skip
            last_saved, saved_step = time.monotonic(), state.step
            return path

        if metrics.repaired:
            notes.append(metrics.repaired)
        try:
            for batch in plan.batches(method, make_views, state.step, notes.append):
                progress = Progress(state.step, plan.total_steps, state.step // plan.steps_per_epoch, plan.epochs)
                step_is_whole = False
                logs: dict[str, float] | None = None
                while logs is None:
                    try:
                        logs = training_step(method, optimizer, batch, progress, plan, scaling, statistics)
                    except DoesNotFit as error:  # nothing has moved
                        step_is_whole = True
                        plan = smaller(plan, state.step, error)
                        step_is_whole = False
                state.step += 1
                spent = before + (clocks() - begun)
                state.seconds, state.cpu_seconds, state.waited_seconds = spent.wall, spent.cpu, spent.waited
                if plan.images_at_once < plan.batch_size:
                    done_so = str(plan.images_at_once)
                    state.micro_batches[done_so] = state.micro_batches.get(done_so, 0) + 1
                probed = doctor.probes_at(state.step)
                seen = doctor.probe(method, batch.views[0], state.step, plan.images_at_once) if probed else {}
                state.probed |= seen
                metrics.write({"step": progress.step, "epoch": progress.epoch, **logs, **seen})
                log(state.step, {**logs, **seen})
                counted = {} if scaling.state.overflows_in_a_row else logs  # a skipped step's are not all there
                _accumulate(state, counted, epoch_done=state.step % plan.steps_per_epoch == 0)
                logs |= state.probed
                warning = doctor.look(state.step, logs, state.lasting)
                step_is_whole = True
                rate = (state.step - first_step) / max(1e-9, state.seconds - before.wall)
                report(
                    StepReport(
                        state.step, plan.total_steps, progress.epoch, plan.epochs, logs, rate * plan.batch_size,
                        (plan.total_steps - state.step) / rate, "; ".join(filter(None, (*notes, warning))),
                    )
                )  # fmt: skip
                notes.clear()
                if after_step is not None:
                    paused = clocks()
                    state.note_peak(plan.device)
                    after_step(state.step)
                    count_peak_anew(plan.device)
                    begun += clocks() - paused
                if stop_requested():
                    raise Stopped(state.step, plan.total_steps, save())
                if time.monotonic() - last_saved > plan.checkpoint_seconds and state.step < plan.total_steps:
                    try:
                        save()
                    except UserError as full:
                        last_saved = time.monotonic()
                        notes.append(f"{full} Training continues and is saved when there is room")
            if saved_step < state.step:
                save()
        except RunFailed as failure:
            good = last_good(checkpoints)
            kept = f"Last good checkpoint: checkpoints/{good.name}." if good else "There is no good checkpoint yet."
            raise RunFailed(f"{failure} {kept}", failure.status) from None
        except (Stopped, HalfDone):
            raise
        except Exception as caught:  # an image that cannot be read, a full disk, a worker that died, too little memory
            if step_is_whole and saved_step < state.step:
                with suppress(UserError):  # a full disk: the previous checkpoint stays
                    save()
            told = in_words(caught, "between two steps")
            if not isinstance(told, UserError) or (told is caught and not saved_step):
                raise
            resume = f" When the cause is gone, resume with: {resume_command(plan.run_dir)}"
            kept = f" The run is saved at step {saved_step:,}.{resume}" if saved_step else ""
            raise UserError(f"{told}{kept}") from caught
        finally:
            state.note_peak(plan.device)
    return state


def restore(method: Method, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> TrainingState:
    """Restore method and optimizer from a checkpoint, bit for bit and in the same memory formats.

    Raises `UserError` for a checkpoint of another network or of another version of sslbench.
    """
    try:
        method.load_state_dict(checkpoint.method)
        optimizer.load_state_dict(checkpoint.optimizer)
        scaling = ScalingState(**checkpoint.state.get("scaling", {}))
        state = TrainingState(**{**checkpoint.state, "scaling": scaling})
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the checkpoint does not fit this run ({str(error).splitlines()[0]}): it is from another run or "
            "from another version of sslbench or of the method's plugin. Start the run again with --restart."
        ) from None
    state.resumed += 1
    return state


def prepare(method: Method, batches: Iterable[Batch], plan: Plan) -> None:
    """Call the method's `prepare` at the plan's precision and without gradient.

    Raises `UserError` for any error in it, in one message; `DoesNotFit` where memory runs out.
    """
    passes = Passes(plan.device, f"prepare-{plan.seed}", autocast_dtype=plan.autocast_dtype)
    passes.draw_for(0)
    told = in_one_message(f"prepare() of {type(method).__name__} fails")
    with told, undone_where_it_does_not_fit(method, plan.images_at_once), torch.no_grad(), passes.autocast():
        method.train().prepare(batch.to(plan.device) for batch in batches)
    method.train()


def training_step(
    method: Method,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    progress: Progress,
    plan: Plan,
    scaling: LossScaling | None = None,
    statistics: NormStatistics | None = None,
) -> dict[str, float]:
    """One optimizer step of the contract: schedule, step, backward, before_optimizer, optimizer, update.

    `batch` is on the host: what is computed next is moved to the device, the whole or a micro-batch at a time. Where
    gradients overflow in fp16, optimizer and update are left out, running statistics are put back, and only what is
    finite is logged. `statistics` are kept by the caller, so that they need no new memory at each step.
    """
    scaling = scaling or LossScaling(plan.device, plan.autocast_dtype, ScalingState())
    statistics = statistics or NormStatistics(method)
    scheduled = set_schedule(optimizer, plan.optimizer, progress, plan.batch_size)
    passes = dataclasses.replace(plan.passes(progress.step), scale=scaling.scale)
    with undone_where_it_does_not_fit(method, plan.images_at_once, statistics):
        output = add_gradients(method, batch, progress, passes)
    with half_done_where_it_does_not_fit(progress.step):
        scaling.unscale(optimizer)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradient_norm = torch.nn.utils.get_total_norm(gradients)  # before the method clips them
        values = {"loss": output.loss, **output.logs, "gradient_norm": gradient_norm, LOSS: output.loss}
        read = sent_to_host(values)
        method.before_optimizer(progress)
        done = scaling.step(optimizer)
        optimizer.zero_grad(set_to_none=True)  # now: the next forward pass needs their memory
    numbers = read()  # waits for the backward pass, while a card computes the optimizer's step
    loss = numbers.pop(LOSS)  # whatever the method logs under its name
    if not scaling.enabled and not math.isfinite(loss):
        raise RunFailed(f"the loss is {loss} at step {progress.step} (epoch {progress.epoch + 1}). {DIVERGED}")
    if done:
        with half_done_where_it_does_not_fit(progress.step), torch.no_grad():
            method.update(output.carry, progress)
    else:
        statistics.put_back()
    logs = {**numbers, **scheduled}
    if scaling.enabled:
        logs = {name: value for name, value in logs.items() if math.isfinite(value)}
        logs["loss_scale"] = scaling.state.scale
    return logs


def _accumulate(state: TrainingState, logs: dict[str, float], *, epoch_done: bool) -> None:
    sums: defaultdict[str, float] = defaultdict(float, state.sums)
    for name, value in logs.items():
        sums[name] += value
    state.sums, state.counted = dict(sums), state.counted + bool(logs)
    if epoch_done:
        state.final_logs = {name: value / state.counted for name, value in state.sums.items()} | state.probed
        state.sums, state.counted = {}, 0
