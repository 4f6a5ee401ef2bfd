"""The runner: preflight, seed, build, evaluate untrained, train, save, evaluate trained, record. Nothing else."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from contextlib import suppress

from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import UnusableFeatures
from ssl_bench.method import Method
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.records.record import EvaluationRecord, RunRecord, write_record
from ssl_bench.records.steps import thinned, write_step_curves
from ssl_bench.runs import machine
from ssl_bench.runs.beginning import measure_before_training, resumed_state
from ssl_bench.runs.describe import describe_data, describe_logged, describe_training
from ssl_bench.runs.during_training import EpochEvaluations, logged_names
from ssl_bench.runs.folder import Start, begin, hold, new_run, stopped_run
from ssl_bench.runs.plain_names import refuse_unwritable
from ssl_bench.runs.precision import Precision
from ssl_bench.runs.recording import Outcome, Status, run_record
from ssl_bench.runs.restart import replacing
from ssl_bench.runs.session import Display, Session, prepare_session
from ssl_bench.runs.state import RunState, write_run_state
from ssl_bench.system.hints import resume_command
from ssl_bench.training.collapse_doctor import RunFailed
from ssl_bench.training.loggers import Loggers
from ssl_bench.training.loop import Stopped, train
from ssl_bench.training.metrics_log import logged_steps
from ssl_bench.training.out_of_memory import DoesNotFit, HalfDone, out_of_memory_in_words
from ssl_bench.training.plan import Plan
from ssl_bench.training.state import TrainingState
from ssl_bench.weights.initial import arch_as_typed
from ssl_bench.weights.kept import keep_weights


def run(resolved: Resolved, start: Start, display: Display) -> RunRecord:
    """Do one run from a complete recipe to its record, which is also written to `run_dir/record.json`.

    Raises `UserError` before anything is trained or replaced for all that can be known by then, `training.Stopped`
    after a stop with everything saved. A run whose loss is not finite is recorded as failed, one that the doctor ended
    or whose features are constant as collapsed.
    """
    refuse_unwritable(resolved.recipe, start.run_dir)
    with out_of_memory_in_words("in the run"), hold(start.run_dir):
        data = describe_data(resolved)
        stopped = stopped_run(resolved, start, data)
        session = prepare_session(resolved, start, display)
        if stopped is None:
            with replacing(start.run_dir, keep_interrupted=not start.restart):
                state = new_run(resolved, data, session.notes)
                begin(start.run_dir, state)
                state = measure_before_training(session, state)
        else:
            begin(start.run_dir, stopped)
            state = measure_before_training(session, stopped)
        return _finish(session, state)


def _finish(session: Session, state: RunState) -> RunRecord:
    """Train from the last checkpoint, save the weights, evaluate, record."""
    line, folder = session.display.line, session.start.run_dir
    before = state.before_training
    assert before is not None
    progress = TrainingState()
    if session.start.resume:
        progress = resumed_state(session.method, session.optimizer, session.plan, line, before.devices)
    precision = Precision(before.precision, before.precision_reason, None)
    session.plan = dataclasses.replace(session.plan, autocast_dtype=precision.autocast_dtype)
    logged = describe_logged(session.resolved, folder, progress.step, lambda text: line("log", text))
    with Loggers(session.loggers, logged, lambda text: line("warning", text)) as loggers:
        progress, status, reason = _train(session, state, progress, loggers)
        try:
            record = _evaluate_and_record(session, state, progress, status, reason, loggers)
        except UserError as error:
            raise UserError(
                f"{error} What was trained is saved. When the cause is gone, resume with: {resume_command(folder)}"
            ) from error
    if record.status == "finished":
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return record


def _train(
    session: Session, state: RunState, progress: TrainingState, loggers: Loggers
) -> tuple[TrainingState, Status, str]:
    """Train to the end, in smaller parts where memory runs out; how that ended, and why where it did not finish."""
    before, folder = state.before_training, session.start.run_dir
    assert before is not None

    def step_down(reason: str) -> None:
        session.step_down(reason)
        kept = before.model_copy(update={"memory": session.memory})
        write_run_state(folder, state.model_copy(update={"before_training": kept}))

    def smaller(_: Plan, step: int, error: DoesNotFit) -> Plan:
        step_down(f"step {step + 1:,}, {error}")
        return session.plan

    if progress.step == 0 and session.plan.total_steps and type(session.method).prepare is not Method.prepare:
        session.display.say("preparing the method: one pass over the training set")
    while True:
        try:
            train(
                session.method, session.make_views, session.optimizer, session.plan, progress, session.display.step,
                _during_training(session, progress.step, loggers), loggers.log, smaller,
            )  # fmt: skip
            return progress, "finished", ""
        except RunFailed as failure:
            return progress, failure.status, str(failure)
        except Stopped:
            with suppress(UserError):  # a full disk: it is written again when the run ends
                write_step_curves(folder, thinned(logged_steps(folder)))
            raise
        except HalfDone as error:
            half_done = str(error)
        # not in the handler: the traceback keeps the optimizer, whose moments would be there twice
        step_down(half_done)
        session.start_over()
        progress = resumed_state(session.method, session.optimizer, session.plan, session.display.line, before.devices)


def _during_training(session: Session, first_step: int, loggers: Loggers) -> Callable[[int], None] | None:
    """What evaluates at the end of every N-th epoch; None without `training.eval_every`."""
    every = session.resolved.recipe.training.eval_every
    if every is None:
        return None
    first = session.assigned[0]
    quick = [(name, evaluator) for name, evaluator in first.evaluators if evaluator.during_training]
    evaluations = EpochEvaluations(
        session.method, quick, first.dataset, session.plan, every, session.start.run_dir, session.display.say,
        loggers.log, images_per_pass=session.images_per_pass,
    )  # fmt: skip
    evaluations.resume_at(first_step)
    return evaluations


def _evaluate_and_record(
    session: Session, state: RunState, progress: TrainingState, status: Status, reason: str, loggers: Loggers
) -> RunRecord:
    """Save and evaluate what was trained, and write the record; constant features end the run as collapsed."""
    folder, trained = session.start.run_dir, list[EvaluationRecord]()
    write_step_curves(folder, thinned(logged_steps(folder)))
    if status == "finished" and session.plan.total_steps:
        _save_weights(session)
        try:
            trained = session.evaluate("trained", progress.step)
            loggers.log(progress.step, logged_names(trained))
        except UnusableFeatures as useless:
            status, reason = useless.status, str(useless)
    _compare_with_limit(session)
    training = describe_training(progress, session.plan, session.method, session.memory)
    outcome = Outcome(status, reason, training, tuple(trained))
    record = run_record(session.resolved, session.start, state, outcome, session.backbone_record, session.plan.device)
    write_record(record, folder / "record.json")
    return record


def _save_weights(session: Session) -> None:
    """Called before any evaluator runs, so that none of them can lose what was trained."""
    recipe, folder = session.resolved.recipe, session.start.run_dir
    description = {
        "run_id": folder.name, "backbone": recipe.backbone.name, "digest": recipe.digest,
        "network": next(iter(session.method.networks())), "arch": arch_as_typed(recipe),
    }  # fmt: skip
    keep_weights(folder, session.network.state_dict(), description)


def _compare_with_limit(session: Session) -> None:
    """On a CPU nothing caps a process: a note says where it took more than the limit."""
    memory, limit = session.memory, session.resolved.machine.memory
    peak = machine.peak_memory_mb(session.plan.device)
    if memory is not None and limit is not None and peak > memory.memory_mb:
        note = f"the process took up to {peak / 1024:.1f} GB, more than --memory {limit}"
        session.display.line("memory", note)
        session.memory = memory.model_copy(update={"note": "; ".join(filter(None, (memory.note, note)))})
