"""The runner: preflight, seed, build, evaluate untrained, train, save, evaluate trained, record. Nothing else."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer
from ssl_bench.errors import UserError
from ssl_bench.evaluation.evaluate import Assigned, assign, build_evaluators, evaluate_network, refuse_unsupported
from ssl_bench.evaluation.features import UnusableFeatures
from ssl_bench.evaluation.speed import measure_speed
from ssl_bench.logger import Logger
from ssl_bench.method import MakeViews, Method, evaluated_network
from ssl_bench.recipes.evaluation_data import folder_name
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.records.record import BackboneRecord, EvaluationRecord, MemoryRecord, RunRecord, write_record
from ssl_bench.records.steps import thinned, write_step_curves
from ssl_bench.registry.capabilities import require_offered
from ssl_bench.registry.preflight import require_frozen, require_parts
from ssl_bench.runs import machine
from ssl_bench.runs.beginning import precision_on_first_batch, resumed_on, resumed_state
from ssl_bench.runs.building import build_method, recompute_activations, require_rebuildable, seed_initial_weights
from ssl_bench.runs.compiling import compile_networks
from ssl_bench.runs.data_checks import check_images
from ssl_bench.runs.describe import announce, describe_backbone, describe_data, describe_logged, describe_training
from ssl_bench.runs.device_name import device_name
from ssl_bench.runs.during_training import EpochEvaluations, logged_names
from ssl_bench.runs.evaluation_fitting import images_in_a_run
from ssl_bench.runs.fitting import as_set, fit, limited_device, memory_line, smaller
from ssl_bench.runs.folder import Start, begin, check_free_space, hold, new_run, stopped_run
from ssl_bench.runs.plain_names import refuse_unwritable
from ssl_bench.runs.precision import Precision
from ssl_bench.runs.recording import Outcome, run_record
from ssl_bench.runs.restart import replacing
from ssl_bench.runs.state import BeforeTraining, RunState, write_run_state
from ssl_bench.runs.trial import require_images_fit
from ssl_bench.system.hints import command, resume_command
from ssl_bench.training.collapse_doctor import RunFailed
from ssl_bench.training.loggers import Loggers, load_loggers
from ssl_bench.training.loop import StepReport, Stopped, train
from ssl_bench.training.metrics_log import logged_steps
from ssl_bench.training.micro_batches import refuse_single_images
from ssl_bench.training.out_of_memory import DoesNotFit, HalfDone, out_of_memory_in_words
from ssl_bench.training.plan import Plan
from ssl_bench.training.state import TrainingState
from ssl_bench.weights.initial import arch_as_typed
from ssl_bench.weights.kept import keep_weights


class Display(Protocol):
    """Where the run tells the user what happens; the command line has one, tests another."""

    def line(self, label: str, text: str) -> None:
        """One labeled line of the preflight."""

    def say(self, text: str) -> None:
        """What is being done at this moment."""

    def step(self, report: StepReport) -> None:
        """A training step is done."""


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
        session = _prepare(resolved, start, display)
        if stopped is None:
            with replacing(start.run_dir, keep_interrupted=not start.restart):
                state = new_run(resolved, data, session.notes)
                begin(start.run_dir, state)
                state = session.measure_before_training(state)
        else:
            begin(start.run_dir, stopped)
            state = session.measure_before_training(stopped)
        return session.finish(state)


@dataclass
class _Session:
    """One process's part of a run: what is built for it."""

    resolved: Resolved
    start: Start
    display: Display
    assigned: tuple[Assigned, ...]
    """Which evaluators are run on which data."""
    notes: tuple[str, ...]
    """What a reader of the numbers must know of the data."""
    method: Method
    make_views: MakeViews
    optimizer: torch.optim.Optimizer
    plan: Plan
    backbone_record: BackboneRecord
    loggers: Mapping[str, type[Logger]]
    images_per_pass: int
    """In evaluations and timed passes."""
    memory: MemoryRecord | None = None
    """How a step fits; None until it is decided."""

    @property
    def network(self) -> Backbone:
        """What is evaluated."""
        return evaluated_network(self.method)

    def measure_before_training(self, state: RunState) -> RunState:
        """Precision, speed and the untrained network, unless an earlier session did; kept in run.json."""
        if state.before_training is None:
            if self.plan.total_steps:
                self._use(fit(self.resolved, self.method, self.make_views, self.plan))
                self._announce_memory()
                self.display.say("trying one batch")
            precision = self._precision()
            speed = measure_speed(self.network, self.resolved.dataset.image_px, self.plan.device, self.images_per_pass)
            if speed.note:
                self.display.line("speed", f"images per second of the network: {speed.note}")
            before = BeforeTraining(
                precision=precision.name,
                precision_reason=precision.reason,
                threads=torch.get_num_threads(),
                speed=speed.as_record(),
                untrained=tuple(self.evaluate("untrained", 0)),
                memory=self.memory,
                devices=(device_name(self.plan.device),),
            )
            state = state.model_copy(update={"before_training": before})
            write_run_state(self.start.run_dir, state)
            self._announce_machine(precision)
        else:
            before, note = resumed_on(state.before_training, self.plan.device)
            if note:
                self.display.line("resume", note)
                notes = tuple(dict.fromkeys((*state.notes, note)))
                state = state.model_copy(update={"before_training": before, "notes": notes})
                write_run_state(self.start.run_dir, state)
            torch.set_num_threads(before.threads)
            if before.memory is not None:
                limited_device(self.plan.device, self.resolved.machine.memory)
                self._use(as_set(before.memory, self.resolved.machine))
                refuse_single_images(self.method, self.plan.batch_size, self.plan.micro_batch)
                self._announce_memory()
            self._announce_machine(Precision(before.precision, before.precision_reason, None))
        return state

    def _use(self, memory: MemoryRecord) -> None:
        """Do steps as planned from now on."""
        self.memory = memory
        recompute_activations(self.method, memory.activation_checkpointing)
        machine.keep_freed_memory_where_it_fits(self.plan.device, memory)
        self.plan = dataclasses.replace(self.plan, micro_batch=memory.micro_batch)

    def _announce_memory(self) -> None:
        assert self.memory is not None
        self.display.line("memory", memory_line(self.memory, self.plan.batch_size))

    def _precision(self) -> Precision:
        """Tried on the first batch, in smaller parts where that does not fit."""
        while True:
            try:
                return precision_on_first_batch(self.method, self.make_views, self.plan, self._as_planned())
            except DoesNotFit as error:
                self._step_down(f"before training, {error}")

    def _as_planned(self) -> Resolved:
        """With what the plan decided in place of what was left to it."""
        decided = {"activation_checkpointing": self.memory is not None and self.memory.activation_checkpointing}
        return dataclasses.replace(self.resolved, machine=self.resolved.machine.model_copy(update=decided))

    def _step_down(self, reason: str) -> None:
        assert self.memory is not None
        self._use(smaller(self.memory, self.resolved, self.method, self.plan, reason))
        self.display.line("memory", self.memory.stepped_down[-1])

    def finish(self, state: RunState) -> RunRecord:
        """Train from the last checkpoint, save the weights, evaluate, record."""
        progress = TrainingState()
        if self.start.resume:
            devices = () if state.before_training is None else state.before_training.devices
            progress = resumed_state(self.method, self.optimizer, self.plan, self.display.line, devices)
        logged = describe_logged(
            self.resolved, self.start.run_dir, progress.step, lambda text: self.display.line("log", text)
        )
        with Loggers(self.loggers, logged, lambda text: self.display.line("warning", text)) as loggers:
            return self._train_and_record(state, progress, loggers)

    def _train_and_record(self, state: RunState, progress: TrainingState, loggers: Loggers) -> RunRecord:
        before, folder = state.before_training, self.start.run_dir
        assert before is not None
        precision = Precision(before.precision, before.precision_reason, None)
        current = plan = dataclasses.replace(self.plan, autocast_dtype=precision.autocast_dtype)

        def stepped_down(plan: Plan, reason: str) -> Plan:
            self._step_down(reason)
            kept = before.model_copy(update={"memory": self.memory})
            write_run_state(folder, state.model_copy(update={"before_training": kept}))
            return dataclasses.replace(plan, micro_batch=self.plan.micro_batch)

        def in_smaller_parts(plan: Plan, step: int, error: DoesNotFit) -> Plan:
            nonlocal current
            current = stepped_down(plan, f"step {step + 1:,}, {error}")
            return current

        status: Literal["finished", "collapsed", "failed"] = "finished"
        reason, trained = "", list[EvaluationRecord]()
        if progress.step == 0 and plan.total_steps and type(self.method).prepare is not Method.prepare:
            self.display.say("preparing the method: one pass over the training set")
        try:
            while True:
                try:
                    train(
                        self.method, self.make_views, self.optimizer, current, progress, self.display.step,
                        self._during_training(progress.step, loggers), loggers.log, in_smaller_parts,
                    )  # fmt: skip
                    break
                except HalfDone as error:
                    half_done = str(error)
                # not in the handler: the traceback keeps the optimizer, whose moments would be there twice
                current = stepped_down(current, half_done)
                progress = self._back_to_the_last_checkpoint(before.devices)
        except RunFailed as failure:
            status, reason = failure.status, str(failure)
        except Stopped:
            with suppress(UserError):  # a full disk: it is written again when the run ends
                write_step_curves(folder, thinned(logged_steps(folder)))
            raise
        try:
            write_step_curves(folder, thinned(logged_steps(folder)))
            if status == "finished" and plan.total_steps:
                self._save_weights()
                try:
                    trained = self.evaluate("trained", progress.step)
                    loggers.log(progress.step, logged_names(trained))
                except UnusableFeatures as useless:
                    status, reason = useless.status, str(useless)
            self._compare_with_limit()
            training = describe_training(progress, plan, self.method, self.memory)
            outcome = Outcome(status, reason, training, tuple(trained))
            record = run_record(self.resolved, self.start, state, outcome, self.backbone_record, plan.device)
            write_record(record, folder / "record.json")
        except UserError as error:
            raise UserError(
                f"{error} What was trained is saved. When the cause is gone, resume with: {resume_command(folder)}"
            ) from error
        if status == "finished":
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return record

    def _back_to_the_last_checkpoint(self, devices: tuple[str, ...]) -> TrainingState:
        """Method and optimizer as they were when the run was last saved, or as they began."""
        self.method.zero_grad(set_to_none=True)
        seed_initial_weights(self.plan.seed)
        self.method.load_state_dict(build_method(self.resolved).state_dict())
        self.optimizer = build_optimizer(self.plan.optimizer, self.method.parameter_groups())
        if self.plan.device.type == "cuda":
            torch.cuda.empty_cache()
        return resumed_state(self.method, self.optimizer, self.plan, self.display.line, devices)

    def _during_training(self, first_step: int, loggers: Loggers) -> Callable[[int], None] | None:
        """What evaluates at the end of every N-th epoch; None without `training.eval_every`."""
        every = self.resolved.recipe.training.eval_every
        if every is None:
            return None
        first = self.assigned[0]
        quick = [(name, evaluator) for name, evaluator in first.evaluators if evaluator.during_training]
        evaluations = EpochEvaluations(
            self.method, quick, first.dataset, self.plan, every, self.start.run_dir, self.display.say,
            loggers.log, images_per_pass=self.images_per_pass,
        )  # fmt: skip
        evaluations.resume_at(first_step)
        return evaluations

    def evaluate(self, subject: Literal["untrained", "trained"], step: int) -> list[EvaluationRecord]:
        """Every evaluator on its data, with the network as it is now, after `step` steps."""
        found = []
        for part in self.assigned:
            if len(self.assigned) > 1 and part.evaluators:
                self.display.say(f"evaluating on {part.dataset.name}")
            found += evaluate_network(
                self.network, subject, part.evaluators, part.dataset, network=next(iter(self.method.networks())),
                step=step, batch_size=self.images_per_pass, seed=self.plan.seed, device=self.plan.device,
                workers=self.plan.workers, run_dir=self.start.run_dir,
                places=[part.place(name, subject) for name, _ in part.evaluators], say=self.display.say,
            )  # fmt: skip
        return found

    def _compare_with_limit(self) -> None:
        """On a CPU nothing caps a process: a note says where it took more than the limit."""
        peak, limit = machine.peak_memory_mb(self.plan.device), self.resolved.machine.memory
        if self.memory is not None and limit is not None and peak > self.memory.memory_mb:
            note = f"the process took up to {peak / 1024:.1f} GB, more than --memory {limit}"
            self.display.line("memory", note)
            self.memory = self.memory.model_copy(update={"note": "; ".join(filter(None, (self.memory.note, note)))})

    def _save_weights(self) -> None:
        """Before any evaluator runs: nothing trained hangs on one."""
        recipe, folder = self.resolved.recipe, self.start.run_dir
        description = {
            "run_id": folder.name, "backbone": recipe.backbone.name, "digest": recipe.digest,
            "network": next(iter(self.method.networks())), "arch": arch_as_typed(recipe),
        }  # fmt: skip
        keep_weights(folder, self.network.state_dict(), description)

    def _announce_machine(self, precision: Precision) -> None:
        self.display.line("machine", machine.describe(self.plan.device, precision, self.plan.total_steps))


def _prepare(resolved: Resolved, start: Start, display: Display) -> _Session:
    """Build everything; raises `UserError` for all that can be known before a step, and writes nothing."""
    recipe, dataset = resolved.recipe, resolved.dataset
    loggers = load_loggers(resolved.machine.log)
    evaluators = build_evaluators([(part.name, part.settings) for part in recipe.evaluators])
    device = machine.choose_device(resolved.machine.device)
    if reason := machine.why_not_on_a_card(device, resolved.machine.device):
        display.line("device", f"{device}: {reason}")
    workers = machine.choose_workers(resolved.machine.workers, dataset.image_px)
    notes = check_images(resolved, display.line)
    sets = {folder_name(one.name): one for one in resolved.eval_data}
    assigned = assign(evaluators, dataset, sets)
    seed_initial_weights(recipe.training.seed)
    machine.set_tf32(resolved.machine.tf32, device)
    method = build_method(resolved)
    images_per_pass = images_in_a_run(resolved, method, device, display.line)
    method = method.to(device)
    if resolved.machine.compile:
        compile_networks(method, device)
    make_views = method.make_views(resolved.method_config)
    require_parts(make_views, method.networks(), recipe.method.name)
    require_frozen(method, recipe.method.name)
    require_rebuildable(method, resolved)
    network = evaluated_network(method)
    refuse_unsupported(network, recipe.arch, evaluators)
    require_offered(method, "method", recipe.method.name, recipe.arch, network)
    if recipe.training.epochs and not any(True for _ in network.parameters()):
        raise UserError(
            f"{recipe.arch} has no weights, so {recipe.method.name!r} cannot train it. Evaluate it with: "
            f"{command('run', 'random', '--arch', recipe.arch)}"
        )
    require_images_fit(network, dataset.image_px, recipe.arch, resolved)
    for one in resolved.eval_data:
        if one.image_px != dataset.image_px:
            require_images_fit(network, one.image_px, f"{recipe.arch}, evaluated on {one.name},")
    optimizer_settings = OptimizerSettings(**recipe.optimizer)
    optimizer = build_optimizer(optimizer_settings, method.parameter_groups())
    plan = Plan(
        split=resolved.training_split,
        batch_size=recipe.training.batch_size,
        epochs=recipe.training.epochs,
        seed=recipe.training.seed,
        optimizer=optimizer_settings,
        device=device,
        autocast_dtype=None,
        workers=workers,
        run_dir=start.run_dir,
        checkpoint_seconds=resolved.machine.checkpoint_minutes * 60,
        micro_batch=resolved.machine.micro_batch,
    )
    backbone_record = describe_backbone(resolved, network)
    announce(display.line, resolved, plan.steps_per_epoch, backbone_record, network)
    if plan.total_steps:
        check_free_space(method, optimizer, start.run_dir)
    return _Session(
        resolved=resolved,
        start=start,
        display=display,
        assigned=assigned,
        notes=notes,
        method=method,
        make_views=make_views,
        optimizer=optimizer,
        plan=plan,
        backbone_record=backbone_record,
        loggers=loggers,
        images_per_pass=images_per_pass,
    )
