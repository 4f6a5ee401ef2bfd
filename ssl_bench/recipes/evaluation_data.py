"""What a run is evaluated on and by what: the sets of --eval-data, else the training data, if these have labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ssl_bench import registry
from ssl_bench.errors import DoesNotFitData, UserError
from ssl_bench.records.recipe import DataPart
from ssl_bench.settings import section_of

if TYPE_CHECKING:
    from ssl_bench.dataset import Dataset
    from ssl_bench.datasets.opening import Opening
    from ssl_bench.method import Method

DEFAULT_EVALUATORS = ("knn", "linear-probe")
WITHOUT_LABELS = ("label-free",)
"""The default evaluators where nothing has labels."""
LABELED_LAYOUT = "a folder with train/CLASS/IMAGE and val/CLASS/IMAGE"


def dataset_loaders() -> dict[str, Any]:
    """Every registered dataset by name, loaded when asked for (`opening.Known`)."""
    return {name: partial(registry.dataset, name) for name in registry.names("dataset")}


def open_evaluation_set(
    text: str, settings: Mapping[str, Any], image_px: int, open_data: Opening | None = None
) -> tuple[str, Dataset]:
    """The plugin and the opened dataset that `text` names, seen at `image_px` unless `settings` say otherwise.

    `open_data` as in `resolve`. Raises `UserError`.
    """
    from ssl_bench.datasets.opening import find_dataset, open_found

    open_data = open_data or open_found
    found = find_dataset(text, dataset_loaders())
    if "image_px" in found.kind.Config.model_fields:
        return found.plugin, open_data(found, {"image_px": image_px} | dict(settings))
    dataset = open_data(found, settings)
    if dataset.image_px != image_px:
        try:
            dataset.image_px = image_px  # the evaluation resizes to it
        except AttributeError:
            raise UserError(
                f"the dataset {found.plugin} gives images of {dataset.image_px} px and the network is built for "
                f"{image_px} px: choose other data, or a run on images of {dataset.image_px} px"
            ) from None
    return found.plugin, dataset


def open_evaluation_sets(
    texts: Sequence[str], values: Mapping[str, Any], image_px: int, open_data: Opening | None = None
) -> list[tuple[str, Dataset]]:
    """Plugin and dataset of each of `texts`, with names of their own.

    `values` may hold `eval_data.SETTING`, for all of them, and `eval_data.NUMBER.SETTING`, from 1. Raises `UserError`,
    also for a set that is given twice.
    """
    given = section_of(values, "eval_data")
    numbered = {key for key in given if key.partition(".")[0].isdecimal()}
    shared = {key: value for key, value in given.items() if key not in numbered}
    for key in given:
        number = key.partition(".")[0]
        if not texts or (key in numbered and not 1 <= int(number) <= len(texts)):
            count = f"{len(texts)} set{'s are' if len(texts) > 1 else ' is'} given" if texts else "none is given"
            raise UserError(f"'eval_data.{key}' sets evaluation data, and {count} (--eval-data PATH)")
    opened: list[tuple[str, Dataset]] = []
    for place, text in enumerate(texts, start=1):
        plugin, dataset = open_evaluation_set(text, shared | section_of(given, str(place)), image_px, open_data)
        if any(dataset.fingerprint == other.fingerprint for _, other in opened):
            raise UserError(f"--eval-data {text!r} is given twice: leave one out")
        opened.append((plugin, dataset))
    counts = Counter(folder_name(dataset.name) for _, dataset in opened)
    for _, dataset in opened:
        if counts[folder_name(dataset.name)] > 1:
            dataset.name += f"-{dataset.fingerprint[:4]}"
    return opened


def folder_name(name: str) -> str:
    """A dataset's name as part of a folder's name, on any file system."""
    return "".join(c if c.isalnum() or c in "_.-" else "_" for c in name).lower()


def data_part(plugin: str, dataset: Dataset, trained_on: int) -> DataPart:
    """The data as a recipe keeps them; `trained_on` is the number of training images."""
    return DataPart(
        name=dataset.name,
        path=str(dataset.path) if dataset.path else None,
        fingerprint=dataset.fingerprint,
        image_px=dataset.image_px,
        settings=dataset.config.model_dump(mode="json"),
        plugin=plugin,
        train_images=trained_on,
        test_images=0 if dataset.test is None else len(dataset.test),
    )


def require_training_labels(method: type[Method], name: str, dataset: Dataset) -> None:
    """Raises `DoesNotFitData` for a method that trains on labels and data without any."""
    if method.needs_labels and dataset.train.labels is None:
        raise DoesNotFitData(
            f"{name} trains on labels, and {dataset.name} has none{_as_read(dataset)}. Give labeled data "
            f"({LABELED_LAYOUT}), or choose a method that needs no labels (sslbench list methods)."
        )
    if method.needs_labels and (one := _only_class(dataset)):
        raise DoesNotFitData(
            f"{name} trains on labels, and {dataset.name} has one class only ({one}). Give data of at least two "
            "classes, or choose a method that needs no labels (sslbench list methods)."
        )


def default_evaluators(training: Dataset, sets: Sequence[Dataset]) -> tuple[str, ...]:
    """What evaluates where the user named nothing: without labels anywhere, what needs none."""
    if sets or training.labeled:
        return DEFAULT_EVALUATORS
    return tuple(name for name in WITHOUT_LABELS if name in registry.names("evaluator"))


def require_labels(evaluators: Sequence[str], training: Dataset, sets: Sequence[Dataset]) -> None:
    """Raises `UserError` unless every set has what `evaluators`, which need labels, read: labels of several classes.

    Without `sets` the training data are evaluated on.
    """
    needing = f"{' and '.join(evaluators)} {'need' if len(evaluators) > 1 else 'needs'} labels"
    without = f"--with {','.join(WITHOUT_LABELS)}"
    for dataset in sets or (training,) if evaluators else ():
        if not dataset.labeled:
            lacks, hold_out = f"none{_as_read(dataset)}", ""
            if dataset.train.labels is not None:
                lacks = "labels but no labeled test part"
                if "held_out" in type(dataset.config).model_fields:
                    hold_out = f" Hold some out: --set {'eval_data' if sets else 'data'}.held_out=0.1."
            if sets:
                raise UserError(
                    f"{needing}, and the evaluation data {dataset.name} have {lacks}.{hold_out} "
                    f"Give --eval-data {LABELED_LAYOUT}, or {without}."
                )
            raise UserError(
                f"{needing}, and {dataset.name} has {lacks}.{hold_out} Add --eval-data with {LABELED_LAYOUT}, or "
                f"give {without}."
            )
        if one := _only_class(dataset):
            raise UserError(
                f"{dataset.name} has one class only ({one}): accuracy on one class is meaningless. "
                f"Give evaluation data of at least two classes (--eval-data), or {without}."
            )


def _only_class(dataset: Dataset) -> str:
    """The class that all training images with labels are of; "" where there are several classes or no labels."""
    labels = set(dataset.train.labels or ())
    return dataset.classes[labels.pop()] if len(labels) == 1 else ""


def _as_read(dataset: Dataset) -> str:
    """How the data were read, in brackets, where the dataset says so."""
    return f" ({dataset.notes[0]})" if dataset.notes and dataset.notes[0].startswith("read ") else ""
