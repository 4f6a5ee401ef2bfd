"""Checks of `[runs]`: names of plugins, sections of settings, what each variant shows; nothing is imported for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ssl_bench import registry
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.recipes.recipe_file import SECTIONS
from ssl_bench.tables.description import TableDescription
from ssl_bench.tables.variants import VARIANT, Changes, Runs, Size

SET_ELSEWHERE = {"training.seed": "the size's `seeds` says how many seeds there are"}
"""Settings that no description sets, and why."""


def check_runs(description: TableDescription, where: str) -> None:
    """Raises `UserError` for the first mistake in `[runs]`; `where` names the description in messages.

    The names of settings within a section are checked once a run is planned, since that imports its plugins.
    """
    runs = description.runs
    if runs is None:
        return
    _check_sizes(runs, where)
    names = [variant.name for variant in runs.variant]
    for variant in runs.variant:
        place = f"{where}: variant {variant.name!r}"
        if names.count(variant.name) > 1:
            raise UserError(f"{place} stands {names.count(variant.name)} times; give each variant a name of its own")
        _check_plugin("method", variant.method, place)
        _check_plugin("backbone", variant.arch, place)
        _check_settings(variant.set, place)
    _check_shown(description, runs, where)


def _shown_rows(description: TableDescription) -> list[str]:
    """What each variant has to show."""
    paths = [key.path.removeprefix(f"{VARIANT}.") for key in description.row if key.of_variant]
    return [path for path in paths if path != "name"]


def _check_shown(description: TableDescription, runs: Runs, where: str) -> None:
    """Each variant has a text for each row without `from`, and no two of them are one run."""
    needed = _shown_rows(description)
    ids = [*needed, *description.joining_ids]
    for variant in runs.variant:
        place = f"{where}: variant {variant.name!r}"
        for name in variant.show:
            if name not in ids:
                rows = ", ".join(ids) or "none; a row without `from` takes its text from here"
                raise UserError(
                    f"{place}: show names {name!r}, which is no row without `from` and joins nothing published."
                    f"{did_you_mean(name, ids)} Known: {rows}"
                )
        if missing := [name for name in needed if name not in variant.show]:
            raise UserError(f"{place}: show lacks {', '.join(missing)}: each row without `from` needs a text")
    if not description.of_variants:
        return
    for size in runs.size:
        found: dict[str, str] = {}
        for run in runs.all_runs(size):
            key = repr((run.method, run.arch, run.data, run.preset, sorted(run.settings.items())))
            if key in found:
                raise UserError(
                    f"{where}: the variants {found[key]!r} and {run.variant.name!r} are the same run in the size "
                    f"{size!r}; give them different `set`"
                )
            found[key] = run.variant.name


def _check_sizes(runs: Runs, where: str) -> None:
    if not runs.size:
        raise UserError(
            f'{where}: [runs] has no size. Add include = ["included/sizes.toml"] to [runs], or a [runs.size.NAME]'
        )
    variants = [variant.name for variant in runs.variant]
    for name, size in runs.size.items():
        place = f"{where}: size {name!r}"
        if not size.data:
            known = [other for other in runs.size if other != name]
            raise UserError(f"{place} has no data. Give data = ..., as --data takes it.{did_you_mean(name, known)}")
        for kind, given in _plugin_names(size):
            _check_plugin(kind, given, place)
        for variant in size.variant:
            if variant not in variants:
                raise UserError(
                    f"{place} changes the variant {variant!r}, which the table does not have."
                    f"{did_you_mean(variant, variants)} Known: {', '.join(variants)}"
                )
        _check_settings(size.set, place)
        for part in _all_changes(size):
            _check_settings(part.set, place)


def _plugin_names(size: Size) -> Iterator[tuple[registry.Kind, str]]:
    yield from (("backbone", name) for name in size.arch)
    yield from (("backbone", part.arch) for part in _all_changes(size) if part.arch)
    yield from (("method", name) for name in size.method)
    yield from (("evaluator", name) for name in size.evaluators or ())


def _all_changes(size: Size) -> list[Changes]:
    return [*size.arch.values(), *size.method.values(), *size.variant.values()]


def _check_plugin(kind: registry.Kind, name: str, place: str) -> None:
    try:
        registry.find(kind, name.partition(":")[0] if kind == "backbone" else name)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def _check_settings(names: Iterable[str], place: str) -> None:
    for name in names:
        section, dot, _ = name.partition(".")
        if section not in SECTIONS or not dot:
            raise UserError(
                f"{place}: {name!r} is not a setting.{did_you_mean(section, SECTIONS)} Settings are named "
                f'SECTION.SETTING with the sections {", ".join(SECTIONS)}, e.g. "training.epochs" = 10'
            )
        if name in SET_ELSEWHERE:
            raise UserError(f"{place}: {name!r} cannot be set here: {SET_ELSEWHERE[name]}")
