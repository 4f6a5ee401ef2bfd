"""What a run changes of its preset as the preset is today.

A record says what its run changed of the preset as it was then. Since then the preset may have taken over a value that
was set by hand, or left one that was its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ssl_bench.records.record import RunRecord
from ssl_bench.registry.preset_files import MethodPresets
from ssl_bench.settings import NONE
from ssl_bench.tables.paths import look_up

PresetsSource = Callable[[str], MethodPresets | None]
"""Name of a method -> its presets of today; None: not known."""
EPOCHS = "training.epochs"
NEVER_A_CHANGE = ("training.seed", "training.eval_every")
"""Runs of one row may differ in them."""


@dataclass(frozen=True)
class Changes:
    """What a run changes of its preset."""

    by_hand: frozenset[str]
    """Settings that were set by hand to what the preset does not say today either."""
    older: frozenset[str] = frozenset()
    """Settings that nobody set, whose value the preset had then and has no more."""


def no_presets(method: str) -> None:
    """Nothing is known of today's presets: records are taken at their word."""


def changes_of(record: RunRecord, presets: PresetsSource = no_presets) -> Changes:
    """What a run changes of its preset of today; of the preset as it was where today's is not known."""
    by_hand = settings_by_hand(record)
    known = presets(record.method) if record.weights is None and record.features is None else None
    if known is None:
        return Changes(frozenset(by_hand))
    values = known.values(record.preset, record.backbone.kind)
    batch_size = recorded_setting(record.recipe, "training.batch_size")
    if isinstance(batch_size, int) and record.data.train_images:
        values[EPOCHS] = known.epochs(record.preset, batch_size, record.data.train_images) or values[EPOCHS]
    today = {name: value for name, value in values.items() if value is not None and name not in NEVER_A_CHANGE}
    unlike = {name for name, value in today.items() if not same_setting(recorded_setting(record.recipe, name), value)}
    return Changes(
        by_hand=frozenset(name for name in by_hand if name in unlike or name not in today),
        older=frozenset(unlike - {*by_hand}),
    )


def settings_by_hand(record: RunRecord) -> Collection[str]:
    """Names of the settings that a run changed of its preset; from its command where an old record does not say."""
    if record.changed_settings is not None:
        return record.changed_settings
    options = {"--batch-size": "training.batch_size", "--epochs": "training.epochs"}
    given = [name for option, name in options.items() if option in record.command]
    return [*re.findall(r"--set[ =]'?([\w.-]+)=", record.command), *given]


def recorded_setting(recipe: Mapping[str, Any], name: str) -> Any:
    """The value in a recipe of a setting under the name that `--set` takes; None where it has none."""
    section, _, setting = name.partition(".")
    part = recipe.get(section)
    settings = part.get("settings", part) if isinstance(part, Mapping) else {}
    return look_up(settings, setting)


def same_setting(recorded: Any, wanted: Any) -> bool:
    """Equal as settings are: 1 and 1.0 are, 1 and true are not, the word "none" is None."""
    if wanted == NONE:
        return recorded is None or recorded == NONE
    if isinstance(wanted, list | tuple) and isinstance(recorded, list | tuple):
        return len(wanted) == len(recorded) and all(map(same_setting, recorded, wanted))
    return isinstance(recorded, bool) == isinstance(wanted, bool) and bool(recorded == wanted)
