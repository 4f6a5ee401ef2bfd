"""Every variant of every table in every size: its recipe resolves, and changes exactly what its row says."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ssl_bench import registry
from ssl_bench.datasets import opening
from ssl_bench.datasets.shapes.dataset import Shapes
from ssl_bench.recipes.preset_changes import changed_settings
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import Resolved, resolve
from ssl_bench.records.recipe import arch_text
from ssl_bench.records.record import RunRecord
from ssl_bench.registry.preset_files import presets_of
from ssl_bench.settings import Settings, parse_settings, section_of
from ssl_bench.tables.loading import built_in_tables, load_table
from ssl_bench.tables.matching import Matcher
from ssl_bench.tables.paths import flatten
from ssl_bench.tables.todays_preset import changes_of, recorded_setting
from ssl_bench.tables.variants import Runs, VariantRun
from tests.example_records import make_record

FOLLOWS = {"method.local_views": {"method.global_scale"}}
"""Setting -> settings that the method decides from it where they are left open."""


class Images:
    """A split that has a length and labels, and no pixels."""

    def __init__(self, count: int) -> None:
        self.count, self.labels = count, (0, 1)

    def __len__(self) -> int:
        return self.count


class OnPaper:
    """A dataset as large as the real one, of which nothing is read."""

    synthetic = False
    path = None
    notes = ()
    labeled = True
    fingerprint = "beef" * 16

    class Config(Settings):
        image_px: int = 224

    def __init__(self, config: Any, path: Path | None) -> None:
        self.config, self.name, self.image_px = config, type(self).__name__.lower(), config.image_px
        self.pretraining = self.train
        self.splits = {"train": self.train, "test": self.test}


class ImageNet(OnPaper):
    """1,281,167 images of 224 px."""

    classes = tuple(map(str, range(1000)))
    train, test = Images(1_281_167), Images(50_000)


class ShapesOnPaper(OnPaper):
    """As many images as shapes has, with its settings."""

    Config = Shapes.Config
    classes = tuple(map(str, range(10)))
    train, test = Images(8000), Images(2000)


@pytest.fixture(autouse=True)
def data_on_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: dict[str, Any] = {"imagenet": ImageNet, "shapes": ShapesOnPaper}
    monkeypatch.setattr(opening, "find_dataset", lambda text, known: opening.Found(text, kinds[text], None))


def tables_with_runs() -> list[str]:
    return [name for name in built_in_tables() if load_table(name).description.runs]


@cache
def runs_of(table: str) -> Runs:
    runs = load_table(table).description.runs
    assert runs is not None
    return runs


def resolved(run: VariantRun, **left_out: Any) -> Resolved:
    """The run, evaluated by k-NN alone: masks and clips are not at hand."""
    values = {name: value for name, value in run.settings.items() if not name.startswith("evaluators.")}
    return resolve(
        Request(
            method=run.method,
            arch=run.arch,
            data=run.data,
            preset=run.preset,
            evaluators=("knn",),
            values={name: value for name, value in values.items() if name not in left_out},
        )
    )


def plain_recipe(one: Resolved) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section in ("method", "backbone", "optimizer", "training"):
        content = one.recipe.model_dump(mode="json")[section]
        flat |= flatten(content.get("settings", content), section)
    return flat


@pytest.mark.parametrize("size", ["paper", "thesis", "laptop"])
@pytest.mark.parametrize("table", tables_with_runs())
def test_a_recipe_changes_exactly_what_its_row_says_and_its_record_fills_the_row(table: str, size: str) -> None:
    runs = runs_of(table)
    matcher, told_apart = Matcher(runs), load_table(table).description.of_variants
    for place, run in enumerate(runs.all_runs(size)):
        own = {**run.variant.set, **runs.size[size].variant.get(run.variant.name, run.variant).set}
        one = resolved(run)
        plain = plain_recipe(one)
        # each setting stands in the recipe as it was given
        for name, value in run.settings.items():
            if not name.startswith(("evaluators.", "data.")):
                assert plain[name] == (None if value == "none" else value), (run.variant.name, name)
        # the same run without the variant's settings differs in them, and in what follows from them, alone
        if own:
            base = plain_recipe(resolved(run, **{name: value for name, value in own.items() if name[:5] != "data."}))
            unlike = {name for name in plain if plain[name] != base[name]}
            allowed = {*own}.union(*(FOLLOWS.get(name, set()) for name in own))
            assert unlike <= allowed, (run.variant.name, unlike - allowed)
        # and its record stands in its row
        record = as_record(one)
        found = matcher.find(record, changes_of(record, presets_of))
        assert found is not None, run.variant.name
        assert not found.older, (run.variant.name, found.older)
        if told_apart:
            assert found.candidate.position == place, (run.variant.name, found.candidate.run.variant.name)
            assert found.base == ()


def as_record(one: Resolved) -> RunRecord:
    recipe = one.recipe.model_dump(mode="json")
    record = make_record(one.recipe.method.name, arch_text(one.recipe.backbone.name, one.recipe.backbone.settings))
    return record.model_copy(
        update={
            "recipe": recipe,
            "preset": one.preset,
            "changed_settings": changed_settings(one, one.preset),
            "backbone": record.backbone.model_copy(
                update={"kind": one.backbone.kind_for(one.backbone_config, one.dataset.image_px)}
            ),
            "data": record.data.model_copy(update={"name": one.dataset.name, "train_images": len(one.training_split)}),
        }
    )


@pytest.mark.parametrize("table", tables_with_runs())
def test_names_of_evaluators_settings_exist(table: str) -> None:
    for size in runs_of(table).size.values():
        for name in size.evaluators or ():
            kind = registry.evaluator(name)
            given = section_of(size.set, f"evaluators.{name}")
            assert set(given) <= set(kind.Config.model_fields)
            parse_settings(kind.Config, given, f"evaluators.{name}", name)


@pytest.mark.parametrize("table", tables_with_runs())
def test_the_laptop_trains_for_minutes(table: str) -> None:
    for run in runs_of(table).all_runs("laptop"):
        assert resolved(run).recipe.training.epochs <= 6, run.variant.name


def test_tables_share_the_run_of_the_unchanged_method() -> None:
    digests = {}
    for table, name in (("components", "DINO"), ("teacher", "momentum"), ("collapse", "both")):
        (variant,) = [one for one in runs_of(table).variant if one.name == name]
        digests[table] = resolved(runs_of(table).run(variant, "laptop")).recipe.digest
    assert len(set(digests.values())) == 1


def test_recorded_settings_by_hand() -> None:
    record = make_record(settings={"local_views": 0})
    assert recorded_setting(record.recipe, "method.local_views") == 0
    assert recorded_setting(record.recipe, "training.batch_size") == 32
    assert recorded_setting(record.recipe, "optimizer.name") == "adamw"
    assert recorded_setting(record.recipe, "backbone.depth") is None
