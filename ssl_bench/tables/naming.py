"""What a row names of its settings: all that tells it from other rows, and all that it changes of its preset.

No two rows look alike, and a word that one setting brings in never hides another setting that differs as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ssl_bench.tables.description import Key, TableDescription
from ssl_bench.tables.grouping import Group, canonical
from ssl_bench.tables.paths import look_up, plain_text

PRESET = "preset"
IMAGE_PX = ("data.image_px", "recipe.data.image_px", "recipe.data.settings.image_px")
"""One value in three places of a record."""
WEIGHTS_FILE, WEIGHTS_SHA256 = "weights.file", "recipe.weights.sha256"
SHA256_SHOWN = 12
"""Digits of a digest in a table, as `inspect` shows them."""
NOT_RECORDED = "not recorded"
"""Stands for the value of a setting that a record of an older version does not have."""


def tell_apart(description: TableDescription, keys: Sequence[Key], groups: Sequence[Group]) -> tuple[str, list[str]]:
    """Write each group's `settings`; returns the words that all groups share, and notes on what rows leave unsaid.

    First comes what the description distinguishes by. Then, among rows of the same keys (e.g. one method on one
    network) and preset, each setting in which they differ: a value that more than half of them have is their standard
    and stands in a note instead. What a run changes of its preset is always named.
    """
    common, words = _distinguished(description, groups)
    for group, group_words in zip(groups, words, strict=True):
        group.distinguished = tuple(group_words)
    notes: list[str] = []
    shown = [*keys, *description.distinguish]
    for same in _alike(keys, groups):
        notes += _name_differences(shown, [groups[index] for index in same], [words[index] for index in same])
    for group, group_words in zip(groups, words, strict=True):
        group.settings = ", ".join(group_words)
    _name_runs(keys, groups)
    return "".join(f", {text}" for text in common), notes


def setting_name(path: str) -> str:
    """The name that `--set` takes of a path into the record.

    >>> setting_name("recipe.method.settings.local_views")
    'method.local_views'
    """
    return path.removeprefix("recipe.").replace(".settings.", ".", 1)


def _named(path: str, group: Group) -> str:
    """A setting with its value, e.g. `method.local_scale=[0.05, 0.4]`."""
    value = group.first.identity.get(path)
    if path not in group.first.identity:
        text = NOT_RECORDED
    elif isinstance(value, list | tuple):
        text = f"[{plain_text(value)}]"
    else:
        text = plain_text(value) or "none"
    text = text[:SHA256_SHOWN] if path == WEIGHTS_SHA256 else text
    return f"{setting_name(path)}={text}"


def _distinguished(description: TableDescription, groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """(words that all groups share, words of each group) of the description's `distinguish`."""
    common: list[str] = []
    words: list[list[str]] = [[] for _ in groups]
    for key in description.distinguish:
        texts = [key.text(look_up(group.first.values, key.path)) for group in groups]
        for places, text in zip([common] if len(set(texts)) == 1 else words, texts, strict=False):
            places += [text] if text else []
    return common, words


def _alike(keys: Sequence[Key], groups: Sequence[Group]) -> Iterable[list[int]]:
    """Indices of the groups that show the same keys."""
    found: dict[tuple[str, ...], list[int]] = {}
    for index, group in enumerate(groups):
        found.setdefault(_texts(keys, group), []).append(index)
    return found.values()


def _texts(keys: Sequence[Key], group: Group) -> tuple[str, ...]:
    return tuple(key.text(value) for key, value in zip(keys, group.keys, strict=True))


def _name_differences(shown: Sequence[Key], groups: Sequence[Group], words: Sequence[list[str]]) -> list[str]:
    """Add to the words of groups with the same keys what they differ in; returns a note on what is standard."""
    named_paths = {key.path for key in shown if _tells(key, groups)}
    named_paths |= _of_variants(groups)
    named_paths |= set(IMAGE_PX) if named_paths & set(IMAGE_PX) else set()
    if WEIGHTS_FILE in named_paths and _files_tell_weights_apart(groups):
        named_paths.add(WEIGHTS_SHA256)
    changes = [group.first.record.changed_settings for group in groups]
    by_preset: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        # a preset stands for its settings where all that a run changes of it is recorded
        preset = group.first.record.preset if PRESET in named_paths and None not in changes else ""
        by_preset.setdefault(preset, []).append(index)
    by_hand = [group.first.facts.changes.by_hand for group in groups]
    standard: list[str] = []
    for same in by_preset.values():
        for path in sorted({path for index in same for path in groups[index].first.identity} - named_paths):
            texts = {index: _named(path, groups[index]) for index in same}
            usual, count = Counter(texts.values()).most_common(1)[0]
            has_standard = 2 * count > len(same)
            for index, text in texts.items():
                named = text != usual or not has_standard or setting_name(path) in by_hand[index]
                if named and text not in words[index]:
                    words[index].append(text)
            if has_standard and count < len(same):
                standard.append(usual)
    if not standard:
        return []
    record = groups[0].first.record
    return [f"{record.method} on {record.backbone.name}, unless its row says otherwise: {', '.join(standard)}"]


def _files_tell_weights_apart(groups: Sequence[Group]) -> bool:
    """Whether weights from elsewhere with different content have different file names."""
    both = {(look_up(one.first.values, WEIGHTS_FILE), look_up(one.first.values, WEIGHTS_SHA256)) for one in groups}
    return len(both) == len({file for file, _ in both})


def _of_variants(groups: Sequence[Group]) -> set[str]:
    """Paths of the settings that make the groups the variants they are, as far as all agree in them."""
    matches = [group.first.match for group in groups]
    names = {name for one in matches if one for name in one.candidate.compared}
    paths = {path for path in groups[0].first.identity if setting_name(path) in names}
    return {path for path in paths if len({canonical(group.first.identity.get(path)) for group in groups}) == 1}


def _tells(key: Key, groups: Sequence[Group]) -> bool:
    """Whether the key's words tell its values apart: labels can give one word to several values."""
    values = [look_up(group.first.values, key.path) for group in groups]
    return len({canonical(value) for value in values}) == len({key.text(value) for value in values})


def _name_runs(keys: Sequence[Key], groups: Sequence[Group]) -> None:
    """Name the runs of rows that would still look alike, e.g. because values differ in their type alone."""
    counts = Counter((_texts(keys, group), group.settings) for group in groups)
    for group in groups:
        if counts[_texts(keys, group), group.settings] > 1:
            runs = " ".join(sorted(run.record.run_id for run in group.runs))
            group.settings = ", ".join(text for text in (group.settings, f"run {runs}") if text)
