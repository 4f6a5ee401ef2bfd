"""Checks of a run's images: they can be read, and none is both trained and tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ssl_bench import registry
from ssl_bench.dataset import Dataset, Split
from ssl_bench.datasets.checking import Checked, check_datasets, require_readable
from ssl_bench.datasets.opening import open_dataset
from ssl_bench.errors import UserError
from ssl_bench.recipes.evaluation_data import dataset_loaders
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.records.recipe import Recipe

NOT_LOOKED_FOR = "test images among the training images were not looked for"


def check_images(resolved: Resolved, line: Callable[[str, str], None]) -> tuple[str, ...]:
    """Open the images of training and evaluation; returns what a reader of the numbers must know about them.

    `line` shows it. Raises `UserError` naming images that cannot be read.
    """
    sets = (resolved.dataset, *resolved.eval_data)
    if all(one.synthetic for one in sets):
        return ()
    checked = require_readable(*sets)
    found = _shared(checked, resolved.evaluation_sets, resolved.dataset, resolved.training_split)
    notes = [note for note in found.values() if note]
    line("images", f"{checked}{f'; {NOT_LOOKED_FOR}' if None in found.values() else ''}")
    for note in notes:
        line("warning", note)
    return tuple(notes)


def trained_and_tested_on(recipe: Recipe, sets: Iterable[Dataset], say: Callable[[str], None]) -> dict[str, str]:
    """Fingerprint of each of `sets` -> how many of its test images the run of `recipe` was trained on; left out: none.

    `say` is told, also when the training data are no longer there to look.
    """
    sets = [one for one in sets if not one.synthetic]
    if not sets:
        return {}
    try:
        training = open_dataset(recipe.data.reference, dataset_loaders(), recipe.data.settings)
        if training.synthetic:
            return {}
        if training.fingerprint != recipe.data.fingerprint:
            raise UserError(f"the training data ({recipe.data.name}) have changed")
        checked = check_datasets(training, *sets)
    except UserError as error:
        say(f"{NOT_LOOKED_FOR}: {error}")
        return {}
    labeled = registry.method(recipe.method.name).needs_labels
    found = _shared(checked, sets, training, training.train if labeled else training.pretraining)
    if None in found.values():
        say(f"{NOT_LOOKED_FOR}: {checked}")
    notes = {fingerprint: note for fingerprint, note in found.items() if note}
    for note in notes.values():
        say(f"warning: {note}")
    return notes


def _shared(checked: Checked, sets: Iterable[Dataset], training: Dataset, split: Split) -> dict[str, str | None]:
    """Fingerprint of each set -> a note on test images that are in the training `split`: "" without any, None where
    this was not looked at."""
    found: dict[str, str | None] = {}
    for one in sets:
        if one.test is None or one.synthetic or training.synthetic:
            continue
        shared = checked.shared(one.test, split)
        found[one.fingerprint] = None if shared is None else ""
        if shared:
            found[one.fingerprint] = (
                f"{shared:,} of the {len(one.test):,} test images of {one.name} {'is' if shared == 1 else 'are'} also "
                f"among the training images ({training.name}), pixel by pixel"
            )
    return found
