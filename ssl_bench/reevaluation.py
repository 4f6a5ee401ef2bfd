"""Evaluating a recorded run's weights again: one immutable file per (run, evaluator, network, settings and data)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import torch

from ssl_bench import machine, registry
from ssl_bench.dataset import Dataset
from ssl_bench.errors import UserError
from ssl_bench.evaluation import build_evaluators, evaluate_network, refuse_unsupported
from ssl_bench.evaluator import Evaluator
from ssl_bench.kept_network import finished_record, kept_weights
from ssl_bench.recipe import MachineSettings, Recipe
from ssl_bench.record import EvaluationRecord, read_evaluation, write_record
from ssl_bench.request import request_of, resolve
from ssl_bench.runner import build_method
from ssl_bench.settings import parse_settings


def reevaluate(
    run_dir: Path,
    names: list[str] | None,
    data: str | None,
    values: Mapping[str, Any],
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[Path], list[EvaluationRecord]]:
    """Evaluate the trained and the untrained network of a finished run; returns the files written and all results.

    The untrained network is rebuilt from the recipe's seed; the network keeps the run's image size whatever the data.
    An evaluation that exists is read, not done again. Raises `UserError` when the run has no weights or a name or
    setting is wrong.
    """
    import dataclasses

    recipe = Recipe.model_validate(finished_record(run_dir).recipe)
    for key in values:
        if key.partition(".")[0] not in ("evaluators", "data", "machine"):
            raise UserError(f"{key!r} decides how a network was trained; eval takes evaluators.*, data.* and machine.*")
    settings = {part.name: part.settings for part in recipe.evaluators}
    chosen = {name: dict(settings.get(name, {})) for name in names or list(settings)}
    for key, value in values.items():
        section, _, rest = key.partition(".")
        name, _, setting = rest.partition(".")
        if section == "evaluators":
            if name not in chosen:
                raise UserError(f"{key!r} sets an evaluator that does not run here. Running: {', '.join(chosen)}")
            chosen[name][setting] = value
    evaluators = build_evaluators(list(chosen.items()))

    request = request_of(recipe, {})
    others = {key: value for key, value in values.items() if not key.startswith("evaluators.")}
    kept = {key: value for key, value in request.values.items() if not key.startswith("evaluators.")}
    if data is not None:
        kept = {key: value for key, value in kept.items() if not key.startswith("data.")}
    kept |= {"data.image_px": recipe.data.image_px, **others} if data is not None else others
    kept["training.batch_size"] = 1  # nothing is trained: other data may be smaller than the run's batch
    resolved = resolve(dataclasses.replace(request, data=data or request.data, values=kept, evaluators=()))
    machine_settings = parse_settings(
        MachineSettings,
        {k.partition(".")[2]: v for k, v in values.items() if k.startswith("machine.")},
        "machine",
        "machine",
    )
    for note in resolved.dataset.notes:
        say(f"{resolved.dataset.name}: {note}")
    device = machine.choose_device(machine_settings.device)
    torch.manual_seed(Random(f"weights-{recipe.training.seed}").getrandbits(63))
    backbone = build_method(resolved).evaluation_backbone().to(device)
    refuse_unsupported(backbone, recipe.backbone.name, evaluators)
    wanted = kept_weights(run_dir)
    paths, results = [], []
    for subject in ("untrained", "trained"):
        if subject == "trained":
            backbone.load_state_dict(wanted)
        for name, evaluator in evaluators:
            place = f"evaluations/{name}-{subject}-{_digest(name, evaluator, resolved.dataset)}"
            path = run_dir / f"{place}.json"
            if path.exists():
                say(f"{name} of the {subject} network was done before; remove {path} to do it again")
                results.append(read_evaluation(path))
                continue
            done = evaluate_network(
                backbone, subject, [(name, evaluator)], resolved.dataset, seed=recipe.training.seed, device=device,
                workers=machine.choose_workers(machine_settings.workers, resolved.dataset.image_px),
                run_dir=run_dir, places=[place], say=say,
            )  # fmt: skip
            write_record(done[0], path)
            paths.append(path)
            results += done
    return paths, results


def _digest(name: str, evaluator: Evaluator, dataset: Dataset) -> str:
    settings = evaluator.config.model_dump(mode="json")
    settings.pop("path", None)  # the fingerprint tells the data, not the place where they lie
    content = [name, registry.find("evaluator", name).origin, settings, evaluator.data(dataset).fingerprint]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
