"""One process's part of a run: what is built for it, and checked before anything is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer
from ssl_bench.errors import UserError
from ssl_bench.evaluation.evaluate import Assigned, assign, build_evaluators, evaluate_network, refuse_unsupported
from ssl_bench.evaluator import Evaluator
from ssl_bench.logger import Logger
from ssl_bench.method import MakeViews, Method, evaluated_network
from ssl_bench.recipes.evaluation_data import folder_name
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.records.cost import MemoryRecord
from ssl_bench.records.record import BackboneRecord, EvaluationRecord
from ssl_bench.registry.capabilities import require_offered
from ssl_bench.registry.preflight import require_frozen, require_parts
from ssl_bench.runs import machine
from ssl_bench.runs.building import (
    build_method,
    recompute_activations,
    require_rebuildable,
    seed_initial_weights,
    views_of_a_run,
)
from ssl_bench.runs.compiling import compile_networks
from ssl_bench.runs.data_checks import check_images
from ssl_bench.runs.describe import announce, describe_backbone
from ssl_bench.runs.evaluation_fitting import images_in_a_run
from ssl_bench.runs.fitting import memory_line, smaller
from ssl_bench.runs.folder import Start, check_free_space
from ssl_bench.runs.trial import require_images_fit
from ssl_bench.system.hints import command
from ssl_bench.training.loggers import load_loggers
from ssl_bench.training.loop import StepReport
from ssl_bench.training.plan import Plan


class Display(Protocol):
    """Where the run tells the user what happens; the command line has one, tests another."""

    def line(self, label: str, text: str) -> None:
        """One labeled line of the preflight."""

    def say(self, text: str) -> None:
        """What is being done at this moment."""

    def step(self, report: StepReport) -> None:
        """A training step is done."""


@dataclass
class Session:
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

    def use(self, memory: MemoryRecord) -> None:
        """Plan the steps from now on as this says."""
        self.memory = memory
        recompute_activations(self.method, memory.activation_checkpointing)
        machine.keep_freed_memory_where_it_fits(self.plan.device, memory)
        self.plan = dataclasses.replace(self.plan, micro_batch=memory.micro_batch)

    def announce_memory(self) -> None:
        """Show how a step fits."""
        assert self.memory is not None
        self.display.line("memory", memory_line(self.memory, self.plan.batch_size))

    def step_down(self, reason: str) -> None:
        """Change to the next plan that takes less memory. Raises `UserError` where there is none."""
        assert self.memory is not None
        self.use(smaller(self.memory, self.resolved, self.method, self.plan, reason))
        self.display.line("memory", self.memory.stepped_down[-1])

    def start_over(self) -> None:
        """Method and optimizer as they were before the first step."""
        self.method.zero_grad(set_to_none=True)
        seed_initial_weights(self.plan.seed)
        self.method.load_state_dict(build_method(self.resolved).state_dict())
        self.optimizer = build_optimizer(self.plan.optimizer, self.method.parameter_groups())
        if self.plan.device.type == "cuda":
            torch.cuda.empty_cache()

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


def prepare_session(resolved: Resolved, start: Start, display: Display) -> Session:
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
    make_views = views_of_a_run(method, resolved)
    _refuse_what_cannot_work(resolved, method, make_views, evaluators)
    plan = _plan(resolved, start, device, workers)
    optimizer = build_optimizer(plan.optimizer, method.parameter_groups())
    network = evaluated_network(method)
    backbone_record = describe_backbone(resolved, network)
    announce(display.line, resolved, plan.steps_per_epoch, backbone_record, network)
    if plan.total_steps:
        check_free_space(method, optimizer, start.run_dir)
    return Session(
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


def _refuse_what_cannot_work(
    resolved: Resolved, method: Method, make_views: MakeViews, evaluators: Sequence[tuple[str, Evaluator]]
) -> None:
    """Raises `UserError` where method, backbone, evaluators and images do not fit together."""
    recipe, image_px = resolved.recipe, resolved.dataset.image_px
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
    require_images_fit(network, image_px, recipe.arch, resolved)
    for one in resolved.eval_data:
        if one.image_px != image_px:
            require_images_fit(network, one.image_px, f"{recipe.arch}, evaluated on {one.name},")


def _plan(resolved: Resolved, start: Start, device: torch.device, workers: int) -> Plan:
    """The plan as the user sets it, in fp32; precision and micro-batches are decided later."""
    training = resolved.recipe.training
    return Plan(
        split=resolved.training_split,
        batch_size=training.batch_size,
        epochs=training.epochs,
        seed=training.seed,
        optimizer=OptimizerSettings(**resolved.recipe.optimizer),
        device=device,
        autocast_dtype=None,
        workers=workers,
        run_dir=start.run_dir,
        checkpoint_seconds=resolved.machine.checkpoint_minutes * 60,
        micro_batch=resolved.machine.micro_batch,
    )
