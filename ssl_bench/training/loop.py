"""The training loop, shared by all methods.

Order and augmentation are functions of (seed, epoch, index) and the global random state is set from (seed, step)
before every step, so a run that stops and resumes is the uninterrupted one, whatever the worker count: bitwise on a
CPU, and elsewhere up to the rounding of kernels that are not deterministic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ssl_bench.errors import UserError
from ssl_bench.method import Batch, MakeViews, Method, Progress
from ssl_bench.system.cpu_time import Spent, clocks
from ssl_bench.system.hints import resume_command
from ssl_bench.system.signals import stop_requests
from ssl_bench.training.checkpoint import last_good, save_checkpoint
from ssl_bench.training.collapse_doctor import PROBED_IMAGES, Doctor, RunFailed, refuse_nan
from ssl_bench.training.metrics_log import MetricsLog
from ssl_bench.training.out_of_memory import DoesNotFit, HalfDone, NormStatistics, in_words
from ssl_bench.training.pace import Pace
from ssl_bench.training.plan import Plan
from ssl_bench.training.precision import LossScaling
from ssl_bench.training.state import TrainingState, reset_peak
from ssl_bench.training.step import prepare, training_step


class Stopped(Exception):
    """The user or the system asked the run to stop; everything up to `step` is saved in `checkpoint`."""

    def __init__(self, step: int, total_steps: int, checkpoint: Path | None) -> None:
        super().__init__(f"stopped at step {step} of {total_steps}")
        self.step, self.total_steps, self.checkpoint = step, total_steps, checkpoint


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


Log = Callable[[int, Mapping[str, float]], None]
"""Gets the number of steps done and the values of the last one."""
Smaller = Callable[[Plan, int, DoesNotFit], Plan]
"""Gets the plan and the step that did not fit into memory; returns a plan that takes less, or raises `UserError`."""


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
    log: Log = lambda step, values: None,
    smaller: Smaller = refuse,
) -> TrainingState:
    """Train from `state.step` to the end of the plan; the last step is saved as well.

    `after_step` gets the number of steps done, before a checkpoint of that step; its time and a card's memory in it do
    not count as training. `log` gets them with the step's values, for loggers. A step that does not fit into memory is
    done again with the plan that `smaller` returns.
    Raises `Stopped` after a signal, with everything saved; `HalfDone` where memory runs out while a step moves the
    method, which then has to be restored from the last checkpoint; `RunFailed` when the loss is not finite or the run
    collapses, with the last good checkpoint kept; and, after saving, any error between two steps (an image that cannot
    be read, a worker process that died).
    """
    reset_peak(plan.device)
    if state.step == 0 and plan.total_steps:
        _prepare(method, make_views, plan)
    method.train()
    with stop_requests() as stop_requested, MetricsLog(plan.run_dir, state.step) as metrics:
        training = _Training(method, optimizer, plan, state, metrics, log, smaller)
        try:
            for batch in plan.batches(method, make_views, state.step, training.notes.append):
                report(training.step(batch))
                if after_step is not None:
                    training.pause_for(after_step)
                if stop_requested():
                    raise Stopped(state.step, plan.total_steps, training.save())
                training.save_if_due()
            if training.has_unsaved_steps:
                training.save()
        except RunFailed as failure:
            good = last_good(training.checkpoints)
            kept = f"Last good checkpoint: checkpoints/{good.name}." if good else "There is no good checkpoint yet."
            raise RunFailed(f"{failure} {kept}", failure.status) from None
        except (Stopped, HalfDone):
            raise
        except Exception as caught:  # an image that cannot be read, a full disk, a worker that died, too little memory
            training.save_if_possible()
            error = training.with_hint_to_resume(caught)
            if error is caught:
                raise
            raise error from caught
        finally:
            state.note_peak(plan.device)
    return state


def _prepare(method: Method, make_views: MakeViews, plan: Plan) -> None:
    try:
        prepare(method, plan.single_pass(method, make_views), plan)
    except UserError as error:  # what it moved is gone with the process: a resumed run prepares from the start
        raise UserError(
            f"{error}. Nothing is trained yet. When the cause is gone, resume with: {resume_command(plan.run_dir)}"
        ) from error


class _Training:
    """The parts of `train`: a step with all that follows it, the clocks, and saving."""

    def __init__(
        self,
        method: Method,
        optimizer: torch.optim.Optimizer,
        plan: Plan,
        state: TrainingState,
        metrics: MetricsLog,
        log: Log,
        smaller: Smaller,
    ) -> None:
        self._method, self._optimizer, self._plan, self._state = method, optimizer, plan, state
        self._metrics, self._log, self._smaller = metrics, log, smaller
        warmup_steps = plan.optimizer.warmup_steps(plan.steps_per_epoch)
        self._doctor = Doctor.of(method, plan.batch_size, plan.total_steps, warmup_steps)
        self._scaling = LossScaling(plan.device, plan.autocast_dtype, state.scaling)
        self._statistics = NormStatistics(method)
        self.checkpoints = plan.run_dir / "checkpoints"
        self.notes = [metrics.repaired] if metrics.repaired else []
        """Shown with the next step."""
        self._saved_step = state.step
        self._pace = Pace(state.step, state.seconds)
        self._step_is_whole = True
        """Whether method, optimizer and state agree about the number of steps done."""
        self._spent_before = Spent(state.seconds, state.cpu_seconds, state.waited_seconds)
        self._last_saved, self._begun = time.monotonic(), clocks()

    def step(self, batch: Batch) -> StepReport:
        """Do one step, log it and ask the doctor about it."""
        plan, state = self._plan, self._state
        progress = Progress(state.step, plan.total_steps, state.step // plan.steps_per_epoch, plan.epochs)
        self._step_is_whole = False
        logs = self._step_that_fits(batch, progress)
        self._count_step()
        probed = self._probe(batch)
        self._metrics.write({"step": progress.step, "epoch": progress.epoch, **logs, **probed})
        self._log(state.step, {**logs, **probed})
        counted = {} if self._scaling.state.overflows_in_a_row else logs  # a skipped step's are not all there
        state.add_to_means(counted, epoch_done=state.step % plan.steps_per_epoch == 0)
        logs |= state.probed
        warning = self._doctor.look(state.step, logs, state.lasting)
        self._step_is_whole = True
        return self._report(progress, logs, warning)

    def _step_that_fits(self, batch: Batch, progress: Progress) -> dict[str, float]:
        """One optimizer step; done again in smaller parts where it does not fit into memory."""
        while True:
            try:
                return training_step(
                    self._method, self._optimizer, batch, progress, self._plan, self._scaling, self._statistics
                )
            except DoesNotFit as error:  # nothing has moved
                self._step_is_whole = True
                self._plan = self._smaller(self._plan, progress.step, error)
                self._step_is_whole = False

    def _count_step(self) -> None:
        plan, state = self._plan, self._state
        state.step += 1
        spent = self._spent_before + (clocks() - self._begun)
        state.seconds, state.cpu_seconds, state.waited_seconds = spent.wall, spent.cpu, spent.waited
        if plan.images_at_once < plan.batch_size:
            size = str(plan.images_at_once)
            state.micro_batches[size] = state.micro_batches.get(size, 0) + 1

    def _probe(self, batch: Batch) -> dict[str, float]:
        """What the doctor finds in the features; nothing at most steps."""
        if not self._doctor.probes_at(self._state.step):
            return {}
        images = batch.first(PROBED_IMAGES).to(torch.device("cpu")).views[0]
        found = self._doctor.probe(self._method, images, self._state.step, self._plan.images_at_once)
        self._state.probed |= found
        return found

    def _report(self, progress: Progress, logs: dict[str, float], warning: str) -> StepReport:
        plan, state = self._plan, self._state
        rate = self._pace.at(state.step, state.seconds)
        lines = "; ".join(filter(None, (*self.notes, warning)))
        self.notes.clear()
        return StepReport(
            step=state.step,
            total_steps=plan.total_steps,
            epoch=progress.epoch,
            epochs=plan.epochs,
            logs=logs,
            images_per_second=rate * plan.batch_size,
            seconds_left=(plan.total_steps - state.step) / rate,
            warning=lines,
        )

    def pause_for(self, after_step: Callable[[int], None]) -> None:
        """Call `after_step`; neither its time nor a card's memory in it counts as training."""
        paused = clocks()
        self._state.note_peak(self._plan.device)
        after_step(self._state.step)
        reset_peak(self._plan.device)
        self._begun += clocks() - paused

    @property
    def has_unsaved_steps(self) -> bool:
        """Whether a step was done since the last checkpoint."""
        return self._saved_step < self._state.step

    def save(self) -> Path:
        """Write a checkpoint. Raises `RunFailed` for weights that are NaN, `UserError` where it cannot be written."""
        state = self._state
        self._metrics.flush()
        refuse_nan(self._method, state.step)
        state.note_peak(self._plan.device)
        path = save_checkpoint(
            self.checkpoints, state.step, self._method.state_dict(), self._optimizer.state_dict(), asdict(state),
            suspect=self._doctor.suspects(state.step, state.lasting),
        )  # fmt: skip
        self._last_saved, self._saved_step = time.monotonic(), state.step
        return path

    def save_if_due(self) -> None:
        """Save at the plan's interval, except after the last step; on a full disk only note it."""
        due = time.monotonic() - self._last_saved > self._plan.checkpoint_seconds
        if not due or self._state.step == self._plan.total_steps:
            return
        try:
            self.save()
        except UserError as full:
            self._last_saved = time.monotonic()
            self.notes.append(f"{full} Training continues and is saved when there is room")

    def save_if_possible(self) -> None:
        """Save before the run ends with an error, unless it happened in the middle of a step."""
        if self._step_is_whole and self.has_unsaved_steps:
            with suppress(UserError):  # a full disk: the previous checkpoint stays
                self.save()

    def with_hint_to_resume(self, caught: Exception) -> Exception:
        """The error that ends the run; one of a user or of memory says from which step and how it resumes."""
        error = in_words(caught, "between two steps")
        if not isinstance(error, UserError) or not self._saved_step:
            return error
        resume = resume_command(self._plan.run_dir)
        return UserError(
            f"{error} The run is saved at step {self._saved_step:,}. When the cause is gone, resume with: {resume}"
        )
