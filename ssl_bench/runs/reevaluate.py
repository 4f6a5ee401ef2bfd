"""Evaluating a recorded run's networks again: one immutable file per (run, evaluator, network, settings and data)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.dataset import Dataset
from ssl_bench.errors import UserError
from ssl_bench.evaluation.evaluate import build_evaluators, evaluate_network, refuse_unsupported
from ssl_bench.evaluator import Evaluator
from ssl_bench.recipes.evaluation_data import DEFAULT_EVALUATORS, open_evaluation_sets, require_labels
from ssl_bench.recipes.evaluators import require_own_evaluators
from ssl_bench.records.reading import read_evaluation
from ssl_bench.records.recipe import MachineSettings, Recipe
from ssl_bench.records.record import EvaluationRecord, RunRecord, write_record
from ssl_bench.records.renamed_settings import assignments_with_current_names, with_earlier_names
from ssl_bench.runs import machine
from ssl_bench.runs.data_checks import trained_and_tested_on
from ssl_bench.runs.evaluation_fitting import images_per_pass
from ssl_bench.runs.networks import finished_record, trained_backbone, untrained_backbone
from ssl_bench.runs.trial import require_images_fit
from ssl_bench.settings import DATA_PATH, parse_settings, section_of

SECTIONS = ("evaluators", "data", "eval_data", "machine")


def reevaluate(
    run_dir: Path,
    names: list[str] | None,
    data: Sequence[str],
    values: Mapping[str, Any],
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[Path], list[EvaluationRecord]]:
    """Evaluate the trained and the untrained network of a finished run; returns the files written and all results.

    `data` are the datasets to evaluate on; empty: the run's own. Both networks are built from the record, at the
    run's image size whatever the data: the untrained one from the recipe's seed, the trained one with the kept weights.
    A run without a training step has only the untrained one. An evaluation that exists is read, not done again. Raises
    `UserError` when a trained run has no weights or a name or setting is wrong.
    """
    record = finished_record(run_dir)
    recipe = Recipe.model_validate(record.recipe)
    for key in values:
        if key.partition(".")[0] not in SECTIONS:
            raise UserError(f"{key!r} decides how a network was trained; eval takes evaluators.*, data.* and machine.*")
    sets = _open(recipe, data, values)
    if names is None and data:
        names = _names_for(recipe, sets)
    evaluators = _evaluators(recipe, names, values)
    needing = [name for name, one in evaluators if one.needs_labels and one.data(sets[0]).name == sets[0].name]
    require_labels(needing, sets[0], sets if data or recipe.eval_data else ())
    machine_settings = parse_settings(MachineSettings, section_of(values, "machine"), "machine", "the machine")
    device = machine.choose_device(machine_settings.device)
    machine.set_up(device, tf32=machine_settings.tf32)
    for dataset in sets:
        for note in dataset.notes:
            say(f"{dataset.name}: {note}")

    network = next((one.network for one in record.evaluations if one.network), None)
    paths, results = [], []
    shared: dict[str, str] | None = None if data and record.steps else {}  # a run has looked at its own data
    for subject, backbone in _networks(run_dir, record, recipe, say):
        refuse_unsupported(backbone, recipe.arch, evaluators)
        for side in sorted({dataset.image_px for dataset in sets}):
            require_images_fit(backbone, side, recipe.arch)
        batch_size = images_per_pass(backbone, sets, device, machine_settings.memory, say)
        backbone.to(device)
        for dataset, (name, evaluator) in product(sets, evaluators):
            if dataset is not sets[0] and evaluator.data(dataset).fingerprint != dataset.fingerprint:
                continue  # it reads a set of its own, once
            digest = _digest(name, evaluator, dataset, recipe.data.image_px)
            called = "pretrained" if subject == "untrained" and backbone.pretrained else subject
            place = f"evaluations/{name}-{called}-{digest}"
            path = run_dir / f"{place}.json"
            earlier = run_dir / f"evaluations/{name}-{subject}-{digest}.json"  # so were pretrained ones called once
            if done_before := next((one for one in (path, earlier) if one.exists()), None):
                say(f"{name} of the {called} network was done before; remove {done_before} to do it again")
                results.append(read_evaluation(done_before))
                continue
            if shared is None:
                shared = trained_and_tested_on(recipe, sets, say)
            done = evaluate_network(
                backbone, subject, [(name, evaluator)], dataset,
                network=network, step=record.steps if subject == "trained" else 0,
                batch_size=batch_size, seed=recipe.training.seed, device=device,
                workers=machine.choose_workers(machine_settings.workers, dataset.image_px),
                run_dir=run_dir, places=[place], say=say,
            )  # fmt: skip
            told = shared.get(done[0].data_fingerprint)
            made = done[0].model_copy(update={"notes": (told,)}) if told else done[0]
            write_record(made, path)
            paths.append(path)
            results.append(made)
    return paths, results


def _networks(
    run_dir: Path, record: RunRecord, recipe: Recipe, say: Callable[[str], None]
) -> Iterator[tuple[Literal["trained", "untrained"], Backbone]]:
    """The run's network before training and after it, built one after the other.

    One that was pretrained is left out where its weights are gone, unless it is the only one.
    """
    try:
        backbone = untrained_backbone(run_dir)[0]
    except UserError as error:
        if recipe.initial is None or not record.steps:
            raise
        say(f"the network before training is left out: {error}")
    else:
        yield "untrained", backbone
        del backbone  # one network at a time in memory
    if record.steps:
        yield "trained", trained_backbone(run_dir)[0]


def _names_for(recipe: Recipe, sets: Sequence[Dataset]) -> list[str]:
    """The run's evaluators for other data; with those that read labels where the run had none and these have."""
    names = [part.name for part in recipe.evaluators]
    reading = any(registry.evaluator(name).needs_labels for name in names)
    return names if reading or not all(one.labeled for one in sets) else [*names, *DEFAULT_EVALUATORS]


def _evaluators(recipe: Recipe, names: list[str] | None, values: Mapping[str, Any]) -> list[tuple[str, Evaluator]]:
    """The chosen evaluators, by default the run's, with the run's settings below the given ones."""
    settings = {part.name: part.settings for part in recipe.evaluators}
    chosen = {name: dict(settings.get(name, {})) for name in names or list(settings)}
    values = assignments_with_current_names(values, recipe.method.name)
    require_own_evaluators(values, tuple(chosen))
    for name in chosen:
        chosen[name] |= section_of(values, f"evaluators.{name}")
    if not chosen:
        raise UserError("the run was recorded without evaluators: choose some with --with (sslbench list evaluators)")
    return build_evaluators(list(chosen.items()))


def _open(recipe: Recipe, data: Sequence[str], values: Mapping[str, Any]) -> list[Dataset]:
    """The sets that the run was evaluated on, or others, seen at the run's image size unless a setting says another."""
    given = {f"eval_data.{key}": value for key, value in section_of(values, "data").items()}
    given |= {key: value for key, value in values.items() if key.startswith("eval_data.")}
    if data:
        return [one for _, one in open_evaluation_sets(data, given, recipe.data.image_px)]
    parts = recipe.eval_data or (recipe.data,)
    for number, part in enumerate(parts, start=1):
        kept = {f"eval_data.{number}.{key}": value for key, value in part.settings.items()}
        changed = {f"eval_data.{number}.{key}": value for key, value in section_of(given, "eval_data").items()}
        given = kept | {key: value for key, value in changed.items() if key in kept} | given
    try:
        return [one for _, one in open_evaluation_sets([part.reference for part in parts], given, recipe.data.image_px)]
    except UserError as error:
        words = str(error).rstrip(".")
        raise UserError(f"the run's data are not where they were: {words}. Give their place with --data PATH") from None


def _digest(name: str, evaluator: Evaluator, dataset: Dataset, image_px: int) -> str:
    settings = with_earlier_names(f"evaluators.{name}", evaluator.config.model_dump(mode="json"))
    settings.pop(DATA_PATH, None)  # the fingerprint tells the data, not the place where they lie
    content: list[Any] = [name, registry.find("evaluator", name).origin, settings, evaluator.data(dataset).fingerprint]
    if dataset.image_px != image_px:
        content.append(dataset.image_px)
    if evaluator.version > 1:  # older digests stay valid
        content.append(f"version {evaluator.version}")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
