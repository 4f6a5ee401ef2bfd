"""The runner: preflight, seed, build, judge untrained, train, judge trained, record. Nothing else."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol

import torch

from ssl_bench import machine, registry
from ssl_bench.backbone import Backbone
from ssl_bench.checkpoint import load_latest, save_weights
from ssl_bench.contract import require_parts, require_step_output
from ssl_bench.datasets.checking import require_readable
from ssl_bench.doctor import RunFailed
from ssl_bench.errors import UserError
from ssl_bench.evaluation import (
    THROUGHPUT_BATCH,
    build_evaluators,
    evaluate_network,
    inference_rate,
    refuse_unsupported,
)
from ssl_bench.features import UnusableFeatures
from ssl_bench.method import Method
from ssl_bench.optimizers import OptimizerSettings, build_optimizer
from ssl_bench.precision import Precision, choose_precision, first_step
from ssl_bench.record import (
    EvaluationRecord,
    RunRecord,
    write_atomically,
    write_record,
)
from ssl_bench.request import Resolved
from ssl_bench.run_description import announce, describe_backbone, describe_data, describe_training
from ssl_bench.run_folder import Start, check_free_space, hold, open_run, write_run_file
from ssl_bench.training import Plan, StepReport, TrainingState, train


class Display(Protocol):
    """Where the run tells the user what happens; the command line has one, tests another."""

    def line(self, label: str, text: str) -> None:
        """One labelled line of the preflight."""

    def say(self, text: str) -> None:
        """What is being done at this moment."""

    def step(self, report: StepReport) -> None:
        """A training step is done."""


def run(resolved: Resolved, start: Start, display: Display) -> RunRecord:
    """Do one run from a complete recipe to its record, which is also written to `run_dir/record.json`.

    Raises `UserError` before anything is trained for all that can be known by then, `training.Stopped` after a stop
    with everything saved. A run whose loss is not finite is recorded as failed, one that the doctor ended or whose
    features are constant as collapsed.
    """
    with hold(start.run_dir):
        return _run(resolved, start, display)


def _run(resolved: Resolved, start: Start, display: Display) -> RunRecord:
    started = datetime.now(UTC)
    recipe, dataset = resolved.recipe, resolved.dataset
    evaluators = build_evaluators([(part.name, part.settings) for part in recipe.evaluators])
    device = machine.choose_device(resolved.machine.device)
    workers = machine.choose_workers(resolved.machine.workers, dataset.image_px)
    decided = open_run(resolved, start)

    if not dataset.synthetic:
        display.line("images", str(require_readable(dataset)))
    torch.manual_seed(Random(f"weights-{recipe.training.seed}").getrandbits(63))
    method = build_method(resolved).to(device)
    judged, make_views = method.evaluation_backbone(), method.make_views(resolved.method_config)
    require_parts(make_views, judged, recipe.method.name)
    refuse_unsupported(judged, recipe.backbone.name, evaluators)
    _require(method, judged, recipe.method.name, recipe.backbone.name)
    optimizer_settings = OptimizerSettings(**recipe.optimizer)
    optimizer = build_optimizer(optimizer_settings, method.parameter_groups())
    plan = Plan(
        dataset.train, recipe.training.batch_size, recipe.training.epochs, recipe.training.seed, optimizer_settings,
        device, None, workers, start.run_dir, resolved.machine.checkpoint_minutes * 60,
    )  # fmt: skip
    backbone_record = describe_backbone(resolved, judged)
    announce(display.line, resolved, backbone_record, judged)
    check_free_space(method, start.run_dir)

    def judge(subject: Any) -> list[EvaluationRecord]:
        return evaluate_network(
            judged, subject, evaluators, dataset, seed=recipe.training.seed, device=device, workers=workers,
            run_dir=start.run_dir, places=[f"evaluations/{name}-{subject}" for name, _ in evaluators], say=display.say,
        )  # fmt: skip

    state, status_reason = TrainingState(), ""
    if "untrained" in decided:
        untrained = [EvaluationRecord.model_validate(one) for one in decided["untrained"]]
        precision = Precision(decided["precision"], decided["precision_reason"], None)
        torch.set_num_threads(decided["threads"])  # sums depend on how they are split
        rate = decided["inference_images_per_second"]
    else:
        asked = recipe.training.precision
        precision = _measure_precision(method, make_views, plan, asked, display, recipe.method.name)
        rate = inference_rate(judged, dataset.image_px, device)
        untrained = judge("untrained")
        decided |= {
            "precision": precision.name,
            "precision_reason": precision.reason,
            "threads": torch.get_num_threads(),
            "inference_images_per_second": rate,
            "untrained": [one.model_dump(mode="json") for one in untrained],
        }
        write_run_file(start.run_dir, decided)
    display.line("machine", machine.describe(device, precision, plan.total_steps))
    if start.resume and (start.run_dir / "checkpoints").is_dir():
        state = _restore(method, optimizer, start.run_dir, display)

    plan = Plan(**{**vars(plan), "autocast_dtype": precision.autocast_dtype})
    status: Literal["finished", "collapsed", "failed"] = "finished"
    try:
        train(method, make_views, optimizer, plan, state, display.step)
    except RunFailed as failure:
        status, status_reason = failure.status, str(failure)
    trained = []
    if status == "finished" and plan.total_steps:
        try:
            trained = judge("trained")
        except UnusableFeatures as useless:
            status, status_reason = useless.status, str(useless)
    if trained:
        description = {"run_id": start.run_dir.name, "backbone": recipe.backbone.name, "digest": recipe.digest}
        sha256 = save_weights(start.run_dir / "weights.safetensors", judged.state_dict(), description)
        write_atomically(start.run_dir / "weights.json", (json.dumps({"sha256": sha256}) + "\n").encode())
    record = RunRecord(
        run_id=start.run_dir.name,
        status=status,
        status_reason=status_reason,
        preset=decided["preset"],
        preset_reason=decided["preset_reason"],
        recipe=recipe.model_dump(mode="json"),
        digest=recipe.digest,
        seed=recipe.training.seed,
        method=recipe.method.name,
        method_plugin=registry.find("method", recipe.method.name).origin,
        backbone=backbone_record.model_copy(
            update={"inference_images_per_second": round(rate, 2), "inference_batch": THROUGHPUT_BATCH}
        ),
        data=describe_data(resolved),
        machine=machine.record(device, precision),
        training=describe_training(state, plan, device),
        evaluations=(*untrained, *trained),
        versions=machine.versions(),
        git_commit=machine.git_commit(),
        command=start.command,
        started_utc=decided["started_utc"] or started.isoformat(timespec="seconds"),
        finished_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_record(record, start.run_dir / "record.json")
    if status == "finished":
        shutil.rmtree(start.run_dir / "checkpoints", ignore_errors=True)
    return record


def build_method(resolved: Resolved) -> Method:
    """The recipe's method with backbones of its architecture; initial weights come from the global random state."""

    def make_backbone(*, drop_path: float = 0.0) -> Backbone:
        return resolved.backbone(resolved.backbone_config, image_px=resolved.dataset.image_px, drop_path=drop_path)

    return resolved.method(resolved.method_config, make_backbone)


def _measure_precision(
    method: Method, make_views: Any, plan: Plan, asked: str, display: Display, name: str
) -> Precision:
    """Choose the precision on the first real batch, which also tries the views and the step before long work."""
    if plan.total_steps == 0:
        return Precision("fp32", "nothing is trained", None)
    display.say("trying one batch")
    batch = next(dataclasses.replace(plan, workers=0).batches(method, make_views))
    try:
        require_step_output(first_step(method, batch, plan), name)
        return choose_precision(asked, method, batch, plan)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"one batch of {plan.batch_size} images does not fit into the memory of {plan.device}: give a smaller "
            "--batch-size"
        ) from error
    except RuntimeError as error:
        shapes = ", ".join("x".join(map(str, view.shape)) for view in batch.views)
        raise UserError(
            f"the first training step fails on views of {shapes}: {error}. The images may be too small for this "
            "network (--set data.image_px=N). SSLBENCH_DEBUG=1 shows where it happens."
        ) from error


def _restore(method: Method, optimizer: Any, run_dir: Path, display: Display) -> TrainingState:
    weights, moments, stored, warnings = load_latest(run_dir / "checkpoints")
    for warning in warnings:
        display.line("warning", f"{warning}; going on from the checkpoint before it")
    method.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    state = TrainingState(**stored)
    state.resumed += 1
    display.line("resume", f"at step {state.step:,}; the result will be bitwise the uninterrupted one")
    return state


def _require(method: Method, backbone: Backbone, name: str, arch: str) -> None:
    missing = method.requires - backbone.supports
    if missing:
        raise UserError(f"the method {name!r} needs {' and '.join(sorted(missing))}, which {arch} does not have")


def command_line(arguments: Sequence[str] | None = None) -> str:
    """What the user typed, for the record."""
    given = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["sslbench", *given])
