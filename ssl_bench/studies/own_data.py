"""Data of the user's own in place of a size's: what `--data` and `--eval-data` mean for every run of a study.

A size is made for its own data. On others its runs stay about as long: images are seen at most at the size's
`image_px_at_most`, and of more than `images_at_most` images a share is used. Both depend on the data alone, so that the
same command makes the same runs on any machine, and `--set` changes both. (Presets choose the epochs by the number of
images.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssl_bench import registry
from ssl_bench.datasets.opening import OpenedOnce, find_dataset
from ssl_bench.errors import UserError
from ssl_bench.recipes.evaluation_data import LABELED_LAYOUT, dataset_loaders
from ssl_bench.settings import section_of
from ssl_bench.tables.variants import Size

if TYPE_CHECKING:
    from ssl_bench.dataset import Dataset


@dataclass(frozen=True)
class OwnData:
    """How the user's data are read in every run."""

    values: dict[str, Any]
    """Settings of the sections `data` and `eval_data`."""
    notes: tuple[str, ...]
    """What a user must know of it."""
    labeled: bool
    """Whether evaluators that need labels can run."""
    name: str

    def require_labels(self, evaluators: Iterable[str] | None) -> None:
        """Raises `UserError` where these evaluators need labels and nothing has any."""
        needing = [name for name in evaluators or () if registry.evaluator(name).needs_labels]
        if needing and not self.labeled:
            raise UserError(
                f"this study measures by {' and '.join(needing)}, which needs labels, and {self.name} has none to test "
                f"on. Add --eval-data with {LABELED_LAYOUT}"
            )


def own_data(
    data: str | None, eval_data: Sequence[str] | None, given: Mapping[str, Any], size: Size, opened: OpenedOnce
) -> OwnData | None:
    """How the data that the user gave are read, with the settings `given`; None where none were.

    Raises `UserError` for data that cannot be read.
    """
    if data is None:
        return None
    settings = section_of(given, "data")
    dataset, fields = _open(data, settings, opened, held_out=0.0 if eval_data else None)
    values: dict[str, Any] = {}
    notes: list[str] = []
    px, most_px = dataset.image_px, size.image_px_at_most
    if most_px is not None and px > most_px and "image_px" in fields and "image_px" not in settings:
        values["data.image_px"] = most_px
        notes.append(f"images are seen at {most_px} px, which is fast; larger: --set data.image_px={px}")
    values |= _share("data", dataset, fields, settings, size, notes)
    sets = [_open(text, {}, opened) for text in eval_data or ()]
    for number, (one, its_fields) in enumerate(sets, start=1):
        values |= _share(f"eval_data.{number}", one, its_fields, section_of(given, "eval_data"), size, notes)
    labeled = any(one.labeled for one, _ in sets) if sets else dataset.labeled
    return OwnData(values, tuple(notes), labeled, dataset.name)


def _open(
    text: str, given: Mapping[str, Any], opened: OpenedOnce, held_out: float | None = None
) -> tuple[Dataset, frozenset[str]]:
    """A dataset as a run with these settings opens it, and the names of its settings."""
    found = find_dataset(text, dataset_loaders())
    fields = frozenset(found.kind.Config.model_fields)
    settings = {key: value for key, value in given.items() if key in fields}
    if held_out is not None and "held_out" in fields:
        settings.setdefault("held_out", held_out)
    return opened(found, settings), fields


def _share(
    section: str, dataset: Dataset, fields: frozenset[str], given: Mapping[str, Any], size: Size, notes: list[str]
) -> dict[str, float]:
    """The share of the training images that is used."""
    images, most = len(dataset.train), size.images_at_most
    if most is None or images <= most or "train_fraction" not in fields or "train_fraction" in given:
        return {}
    share = float(f"{most / images:.3g}")
    notes.append(
        f"about {most:,} of the {images:,} training images of {dataset.name} are used; "
        f"all: --set {section}.train_fraction=1"
    )
    return {f"{section}.train_fraction": share}
