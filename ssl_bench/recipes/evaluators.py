"""The evaluators of a run: which settings are theirs, and these settings complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.recipes.evaluation_data import require_labels
from ssl_bench.records.recipe import EvaluatorPart, TrainingSettings
from ssl_bench.settings import parse_settings, section_of

if TYPE_CHECKING:
    from ssl_bench.dataset import Dataset
    from ssl_bench.evaluator import Evaluator


def complete_evaluators(
    names: Sequence[str], values: Mapping[str, Any], dataset: Dataset, eval_data: Sequence[Dataset]
) -> tuple[EvaluatorPart, ...]:
    """The evaluators `names` as a recipe holds them, with the settings that `values` give them.

    Raises `UserError` for wrong settings, for data of an evaluator's own that cannot be opened, and where labels are
    needed and missing.
    """
    from ssl_bench.registry.failures import in_one_message

    evaluators: list[EvaluatorPart] = []
    of_the_sets: dict[str, Evaluator] = {}
    """Those that read the run's datasets and not one of their own."""
    for name in names:
        kind = registry.evaluator(name)
        config = parse_settings(kind.Config, section_of(values, f"evaluators.{name}"), f"evaluators.{name}", name)
        with in_one_message(f"the evaluator {name!r} cannot open its data"):
            read = kind(config).data(dataset).fingerprint
        evaluators.append(
            EvaluatorPart(
                name=name,
                settings=config.model_dump(mode="json"),
                fingerprint=None if read == dataset.fingerprint else read,
                version=kind.version,
            )
        )
        if read == dataset.fingerprint:
            of_the_sets[name] = kind(config)
    require_labels([name for name, one in of_the_sets.items() if one.needs_labels], dataset, eval_data)
    for one in of_the_sets.values():
        for evaluated in eval_data or (dataset,):
            one.check(evaluated)
    return tuple(evaluators)


def require_evaluation_during_training(training: TrainingSettings, evaluator_names: Sequence[str]) -> None:
    """Raises `UserError` where `--eval-every` would evaluate nothing."""
    every = training.eval_every
    if every is None:
        return
    if every > training.epochs:
        raise UserError(
            f"training.eval_every = {every} is beyond the run of {training.epochs} epochs: nothing would be evaluated "
            f"during training. Give --eval-every 1 to {training.epochs}, or leave it out."
            if training.epochs
            else f"training.eval_every = {every}, and the run trains nothing (0 epochs): leave --eval-every out."
        )
    if not any(registry.evaluator(name).during_training for name in evaluator_names):
        raise UserError(
            f"--eval-every needs an evaluator that runs during training, and {', '.join(evaluator_names) or 'none'} is "
            "chosen: add knn to --with."
        )


def require_own_evaluators(values: Mapping[str, Any], evaluator_names: Sequence[str]) -> None:
    """Raises `UserError` for a setting of an evaluator that does not run."""
    for key in values:
        if not is_of_evaluators(key, evaluator_names):
            raise UserError(
                f"{key!r} sets an evaluator that does not run here. Running: {', '.join(evaluator_names) or 'none'}; "
                "choose with --with NAME,NAME"
            )
        if key.startswith("evaluators.") and key.count(".") < 2:
            raise UserError(f"{key!r} names no setting: give evaluators.NAME.SETTING, e.g. evaluators.knn.temperature")


def is_of_evaluators(key: str, evaluator_names: Sequence[str]) -> bool:
    """Whether a value keyed `evaluators.NAME.SETTING` is of one of these evaluators; true for every other section."""
    section, _, rest = key.partition(".")
    return section != "evaluators" or rest.partition(".")[0] in evaluator_names
