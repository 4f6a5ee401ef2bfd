"""The data that foreign weights are evaluated on, seen as the weights' source sees images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.dataset import Dataset
from ssl_bench.datasets.opening import Found, find_dataset, open_found
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.recipes.evaluation_data import dataset_loaders


class OpenedSets:
    """Datasets, each listed and fingerprinted once for all networks that see it at one size."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, str, int], tuple[Found, Dataset]] = {}

    def open(self, text: str, settings: Mapping[str, Any], image_px: int) -> tuple[Found, Dataset]:
        """The dataset that `--data` calls `text`, at `image_px` unless its settings give another size."""
        found = find_dataset(text, dataset_loaders())
        sized = "image_px" in found.kind.Config.model_fields
        given = {"image_px": image_px, **settings} if sized else dict(settings)
        key = (text, json.dumps(given, sort_keys=True, default=str), 0 if sized else image_px)
        if key not in self._opened:
            dataset = open_found(found, given)
            if not sized and dataset.image_px != image_px:
                dataset.image_px = image_px  # the evaluation resizes to it
            self._opened[key] = found, dataset
        return self._opened[key]


def changed_preprocessing(own: Preprocessing, changes: Mapping[str, Any]) -> Preprocessing:
    """The weights' own with the settings `preprocessing.*`. Raises `UserError` for wrong names and values."""
    known = [name for name in Preprocessing.model_fields if name != "source"]
    for name in changes:
        if name not in known:
            raise UserError(
                f"'preprocessing.{name}' is not a setting.{did_you_mean(name, known)} Known: {', '.join(known)}"
            )
    try:
        source = {"source": "as given"} if changes else {}
        return Preprocessing.model_validate({**own.model_dump(), **changes, **source})
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(f"'preprocessing.{problem['loc'][0]}': {problem['msg']}, not {problem['input']!r}") from None


def at_size_of_data(preprocessing: Preprocessing, dataset: Dataset) -> Preprocessing:
    """Resized in proportion to the size at which the data are seen. Raises `UserError` for a crop that does not fit."""
    preprocessing = preprocessing.at(dataset.image_px)
    if preprocessing.resize_px < preprocessing.crop_px:
        raise UserError(
            f"preprocessing.resize_px = {preprocessing.resize_px} is smaller than the crop of "
            f"{preprocessing.crop_px} px: resize to at least the crop"
        )
    return preprocessing
