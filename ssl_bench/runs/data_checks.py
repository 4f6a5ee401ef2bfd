"""What is looked at in the images of a run before it begins: do they open, and are some trained and tested on."""

from __future__ import annotations

from collections.abc import Callable

from ssl_bench.datasets.checking import require_readable
from ssl_bench.recipes.resolve import Resolved


def check_images(resolved: Resolved, line: Callable[[str, str], None]) -> tuple[str, ...]:
    """Open the images of training and evaluation, and return what a reader of the numbers must know of them.

    `line` shows it. Raises `UserError` naming images that cannot be read.
    """
    sets = (resolved.dataset, *resolved.eval_data)
    if all(one.synthetic for one in sets):
        return ()
    checked = require_readable(*sets)
    notes, unknown = [], False
    for one in resolved.evaluation_sets:
        if one.test is None or one.synthetic or resolved.dataset.synthetic:
            continue
        shared = checked.shared(one.test, resolved.training_split)
        unknown |= shared is None
        if shared:
            notes.append(
                f"{shared:,} of the {len(one.test):,} test images of {one.name} {'is' if shared == 1 else 'are'} also "
                f"among the training images ({resolved.dataset.name}), pixel by pixel"
            )
    line("images", f"{checked}{'; test images among the training images were not looked for' if unknown else ''}")
    for note in notes:
        line("warning", note)
    return tuple(notes)
