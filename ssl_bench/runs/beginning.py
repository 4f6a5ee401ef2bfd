"""How a process begins its part of a run: what is measured before training, or restored from an earlier session."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from ssl_bench.errors import UserError
from ssl_bench.evaluation.speed import measure_speed
from ssl_bench.method import Batch, MakeViews, Method, evaluated_network
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.registry.preflight import require_step_output
from ssl_bench.runs import machine
from ssl_bench.runs.device_name import device_name
from ssl_bench.runs.fitting import as_planned, as_set, fit, limited_device
from ssl_bench.runs.planned_step import asked_precision
from ssl_bench.runs.precision import Precision, card_has_bf16, choose_precision, first_step
from ssl_bench.runs.session import Session
from ssl_bench.runs.state import BeforeTraining, RunState, write_run_state
from ssl_bench.runs.trial import step_failure
from ssl_bench.training.checkpoint import load_latest
from ssl_bench.training.micro_batches import exactness, refuse_single_images
from ssl_bench.training.out_of_memory import DoesNotFit, is_out_of_memory
from ssl_bench.training.plan import Plan
from ssl_bench.training.state import TrainingState, restore


def measure_before_training(session: Session, state: RunState) -> RunState:
    """Memory, precision, speed and the untrained network, unless an earlier session measured them; kept in run.json."""
    if state.before_training is None:
        precision, before = _measured(session)
        state = state.model_copy(update={"before_training": before})
        write_run_state(session.start.run_dir, state)
    else:
        state, before = _resumed(session, state, state.before_training)
        precision = Precision(before.precision, before.precision_reason, None)
    device, steps = session.plan.device, session.plan.total_steps
    session.display.line("machine", machine.describe(device, precision, steps))
    return state


def _measured(session: Session) -> tuple[Precision, BeforeTraining]:
    if session.plan.total_steps:
        session.use(fit(session.resolved, session.method, session.plan))
        session.announce_memory()
        session.display.say("trying one batch")
    precision = _precision(session)
    device = session.plan.device
    speed = measure_speed(session.network, session.resolved.dataset.image_px, device, session.images_per_pass)
    if speed.note:
        session.display.line("speed", f"images per second of the network: {speed.note}")
    return precision, BeforeTraining(
        precision=precision.name,
        precision_reason=precision.reason,
        threads=torch.get_num_threads(),
        speed=speed.as_record(),
        untrained=tuple(session.evaluate("untrained", 0)),
        memory=session.memory,
        devices=(device_name(device),),
    )


def _resumed(session: Session, state: RunState, before: BeforeTraining) -> tuple[RunState, BeforeTraining]:
    """Use what an earlier session decided; a device that is another one is noted."""
    before, note = resumed_on(before, session.plan.device)
    if note:
        session.display.line("resume", note)
        notes = tuple(dict.fromkeys((*state.notes, note)))
        state = state.model_copy(update={"before_training": before, "notes": notes})
        write_run_state(session.start.run_dir, state)
    torch.set_num_threads(before.threads)
    if before.memory is not None:
        limited_device(session.plan.device, session.resolved.machine.memory)
        session.use(as_set(before.memory, session.resolved.machine))
        refuse_single_images(session.method, session.plan.batch_size, session.plan.micro_batch)
        session.announce_memory()
    return state, before


def _precision(session: Session) -> Precision:
    """Tried on the first batch, in smaller parts where that does not fit."""
    while True:
        planned = as_planned(session.resolved.machine, session.memory)
        resolved = dataclasses.replace(session.resolved, machine=planned)
        try:
            return precision_on_first_batch(session.method, session.make_views, session.plan, resolved)
        except DoesNotFit as error:
            session.step_down(f"before training, {error}")


def precision_on_first_batch(method: Method, make_views: MakeViews, plan: Plan, resolved: Resolved) -> Precision:
    """Choose the precision on the first real batch, which also tries the views and the step before long work.

    Of a batch in micro-batches the first one is tried. Raises `DoesNotFit` where memory runs out, `UserError` where a
    step cannot work.
    """
    if plan.total_steps == 0:
        return Precision("fp32", "nothing is trained", None)
    refuse_single_images(method, plan.batch_size, plan.micro_batch)
    batch: Batch | None = None
    try:
        whole = next(dataclasses.replace(plan, workers=0).batches(method, make_views))
        parts = whole.split(plan.micro_batch)
        batch = parts[0].to(plan.device)
        output = first_step(method, batch, plan, asked_precision(resolved))
        require_step_output(output, resolved.recipe.method.name)
        del output  # its graph
        precision = precision_of(resolved, method, batch, plan)
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            method.zero_grad(set_to_none=True)
            images = plan.images_at_once
            raise DoesNotFit(f"{images} image{'s' * (images > 1)} at once do not fit into memory") from None
        raise step_failure(error, batch, evaluated_network(method), resolved) from error
    if precision.step_seconds is None or len(parts) == 1:
        return precision
    passes = exactness(method, plan.micro_batch, plan.batch_size).forward_passes
    whole_step = precision.step_seconds * len(parts) * (passes + 2) / 3  # a backward pass is about two forward passes
    return dataclasses.replace(precision, step_seconds=whole_step)


def precision_of(resolved: Resolved, method: Method, batch: Batch, plan: Plan) -> Precision:
    """The precision that is asked for; one recorded for "auto" is measured again where it does not work here."""
    asked, settings = asked_precision(resolved), resolved.machine
    if asked == resolved.recipe.training.precision:
        return choose_precision(asked, method, batch, plan, settings)
    try:
        found = choose_precision(asked, method, batch, plan, settings)
    except UserError:
        found = choose_precision("auto", method, batch, plan, settings)
        return dataclasses.replace(found, reason=f"{found.reason}; {asked}, as recorded, does not work here")
    return dataclasses.replace(found, reason="auto: as an earlier run decided and recorded")


def resumed_on(before: BeforeTraining, device: torch.device) -> tuple[BeforeTraining, str]:
    """What was decided where the run began, with the device that resumes it; and a note where it is another one.

    Raises `UserError` for a precision that this device only emulates.
    """
    name = device_name(device)
    if before.precision == "bf16" and device.type == "cuda" and not card_has_bf16(device):
        raise UserError(
            f"the run was begun in bf16, which {name} only emulates: resume it on a card of compute capability 8.0 or "
            "later or with --set machine.device=cpu, or train it again with --restart"
        )
    if not before.devices or before.devices[-1] == name:
        return before, ""
    devices = (*before.devices, name)
    note = f"begun on {devices[0]}, resumed on {', then on '.join(devices[1:])}: the result is the same up to rounding"
    return before.model_copy(update={"devices": devices}), note


def resumed_state(
    method: Method,
    optimizer: torch.optim.Optimizer,
    plan: Plan,
    line: Callable[[str, str], None],
    devices: Sequence[str],
) -> TrainingState:
    """Method and optimizer put into the state of the run's last checkpoint, made on `devices`; `line` shows where."""
    checkpoint = load_latest(plan.run_dir / "checkpoints")
    if checkpoint is None:
        line("resume", "at step 0: no checkpoint was completed before the stop")
        return TrainingState()
    for warning in checkpoint.warnings:
        line("warning", f"{warning}; resuming from the checkpoint before it")
    state = restore(method, optimizer, checkpoint)
    as_now = {str(plan.images_at_once): state.step} if plan.images_at_once < plan.batch_size else {}
    if state.micro_batches == as_now:
        bitwise = plan.device.type == "cpu" and len(set(devices)) <= 1
        words = "bitwise the uninterrupted one" if bitwise else "the uninterrupted one up to rounding"
        line("resume", f"at step {state.step:,}; the result will be {words}")
    else:
        line("resume", f"at step {state.step:,} with another machine.micro_batch, which the record will say")
    return state
