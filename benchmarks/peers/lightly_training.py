"""Our methods against lightly's building blocks, trained the same way: 20-NN of finished runs and of their twins.

    sslbench run simclr --arch resnet18 --data DATA/cifar10-12k --set backbone.width=0.25
    python -m benchmarks.peers.lightly_training results/runs/simclr-resnet18-cifar10_12k-*

Each finished run of ours gets a twin of lightly's loss, heads, transform and moving average: the method `lightly-...`
of that name, which `sslbench run` trains, too. All else is the run's recipe: data and the order of images, backbone
with the same initial weights, optimizer, its schedule and groups, epochs, batch, precision, threads, and our k-NN.
Settings that both sides have (crop, strengths of color, widths, temperature, momentum) are the recipe's too, so that
building blocks are compared and not their defaults.
What the blocks do on their own differs and stays so: how heads are initialized, how pixels are resampled (lightly's
crops are torchvision's, bilinear), which random numbers are drawn. So one pair is one sample; the spread between two
of our own seeds tells how much of a difference means nothing.

Writes one JSON file a run under results/peers/, never over another, and prints ours - lightly's. Exits with 1 if one
of ours is more than 1.5 points below.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ssl_bench import registry
from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer
from ssl_bench.errors import UserError
from ssl_bench.evaluation.evaluate import build_evaluators, evaluate_network
from ssl_bench.method import Method, evaluated_network
from ssl_bench.recipes.request import request_of
from ssl_bench.recipes.resolve import Resolved, resolve
from ssl_bench.records.reading import read_record
from ssl_bench.records.recipe import Recipe
from ssl_bench.records.record import EvaluationRecord, RunRecord
from ssl_bench.runs import machine
from ssl_bench.runs.building import build_method, seed_initial_weights
from ssl_bench.system.files import write_atomically
from ssl_bench.training.loop import StepReport, train
from ssl_bench.training.plan import Plan
from ssl_bench.training.precision import AUTOCAST_DTYPES
from ssl_bench.training.state import TrainingState

TOLERATED = 1.5
TWINS = ("byol", "dino", "simclr")
"""Our methods whose settings lightly's blocks all take; each has a method `lightly-...` beside it."""
METRIC = ("knn", "top1_k20")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run, with record.json")
    parser.add_argument("--results", type=Path, default=Path("results/peers"), help="where the files go")
    given = parser.parse_args(arguments)
    try:
        pairs = [compare(folder, given.results) for folder in given.runs]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(pairs))
    return int(any(pair["difference"] < -TOLERATED for pair in pairs))


def compare(run: Path, results: Path) -> dict[str, Any]:
    """Train and evaluate the twin of one finished run, and write the pair. Raises `UserError` for an unusable run."""
    ours = read_record(run / "record.json")
    if ours.status != "finished" or ours.method not in TWINS:
        raise UserError(f"{run} is a {ours.status} run of {ours.method}: give finished ones of {', '.join(TWINS)}")
    target = results / f"lightly-{ours.run_id}.json"
    if target.exists():
        raise UserError(f"{target} exists; remove it to measure this pair again")
    recipe = Recipe.model_validate(ours.recipe)
    resolved = resolve(request_of(recipe, {}))
    if resolved.recipe.digest != ours.digest:
        raise UserError(f"the recipe of {run} does not resolve to itself here: is the data another?")
    twin = registry.method(f"lightly-{ours.method}")
    blocks, _, different = (inspect.getdoc(twin) or "").partition("\n\n")
    measured, state = train_twin(dataclasses.replace(resolved, method=twin), ours)
    own, theirs = top_1(ours.evaluations), top_1(measured)
    pair = {
        "schema_version": 1,
        "peer": f"lightly {version('lightly')}",
        "blocks": blocks,
        "method": ours.method,
        "run_id": ours.run_id,
        "digest": ours.digest,
        "seed": ours.seed,
        "metric": "/".join(METRIC),
        "n": next(one.n for one in measured[0].measurements if one.metric == METRIC[1]),
        "untrained": top_1(ours.evaluations, "untrained"),
        "ours": own,
        "lightly": theirs,
        "difference": round(own - theirs, 4),
        "same": "data, order of images, initial backbone, optimizer, groups, epochs, batch, precision, threads, k-NN "
        "and the recipe's crop, color strengths, probabilities, widths, temperatures and momentum",
        "different": different,
        "seconds": {"ours": ours.training.seconds, "lightly": round(state.seconds, 2)},
        "final_logs": {"ours": ours.training.final_logs, "lightly": state.final_logs},
        "evaluations": [one.model_dump(mode="json") for one in measured],
        "recipe": ours.recipe,
        "threads": torch.get_num_threads(),
        "precision": ours.machine.precision,
        "processor": ours.machine.device,
        "versions": machine.versions() | {"lightly": version("lightly")},
        "git_commit": machine.git_commit(),
        "command": shlex.join(["python", "-m", "benchmarks.peers.lightly_training", str(run)]),
        "made_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    results.mkdir(parents=True, exist_ok=True)
    write_atomically(target, (json.dumps(pair, indent=1) + "\n").encode())
    return pair


def train_twin(resolved: Resolved, ours: RunRecord) -> tuple[list[EvaluationRecord], TrainingState]:
    """The runner's steps without a run folder: seed, build, train, k-NN."""
    recipe, dataset = resolved.recipe, resolved.dataset
    device = machine.choose_device("auto")
    torch.set_num_threads(ours.machine.threads)
    seed_initial_weights(recipe.training.seed)
    method: Method = build_method(resolved).to(device)
    settings = OptimizerSettings(**recipe.optimizer)
    evaluators = build_evaluators([(part.name, part.settings) for part in recipe.evaluators if part.name == METRIC[0]])
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(
            split=dataset.pretraining,
            batch_size=recipe.training.batch_size,
            epochs=recipe.training.epochs,
            seed=recipe.training.seed,
            optimizer=settings,
            device=device,
            autocast_dtype=AUTOCAST_DTYPES[ours.machine.precision],
            workers=machine.choose_workers(None, dataset.image_px),
            run_dir=Path(folder),
            checkpoint_seconds=float("inf"),
        )
        optimizer = build_optimizer(settings, method.parameter_groups())
        make_views = method.make_views(resolved.method_config)
        state = train(method, make_views, optimizer, plan, TrainingState(), report)
        measured = evaluate_network(
            evaluated_network(method), "trained", evaluators, dataset, seed=recipe.training.seed, device=device,
            workers=plan.workers, run_dir=Path(folder), places=[METRIC[0]],
        )  # fmt: skip
    return measured, state


def report(step: StepReport) -> None:
    if step.step % 100 == 0:
        left = f"{step.seconds_left / 60:.1f} min left"
        print(f"epoch {step.epoch + 1}/{step.epochs}  loss {step.logs['loss']:.3f}  {left}", flush=True)


def top_1(evaluations: Sequence[EvaluationRecord], subject: str = "trained") -> float:
    """20-NN top-1 in percent."""
    (value,) = (
        one.value
        for evaluation in evaluations
        if (evaluation.evaluator, evaluation.subject) == (METRIC[0], subject)
        for one in evaluation.measurements
        if one.metric == METRIC[1]
    )
    return value


def table(pairs: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'20-NN, test top-1 %':<44}{'untrained':>10}{'ours':>8}{'lightly':>9}{'ours - lightly':>16}"]
    for pair in pairs:
        lines.append(
            f"{pair['run_id']:<44}{pair['untrained']:>10.1f}{pair['ours']:>8.1f}{pair['lightly']:>9.1f}"
            f"{pair['difference']:>+16.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
