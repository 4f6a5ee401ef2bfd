"""Which of several runs fills a row: the one that today's description means; the others are named."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from ssl_bench.records.record import RunRecord
from ssl_bench.registry.preset_files import MethodPresets, PresetValues
from ssl_bench.tables.fold import fold
from ssl_bench.tables.grouping import RecordFacts
from ssl_bench.tables.loading import load_table
from ssl_bench.tables.table import Table
from ssl_bench.tables.todays_preset import Changes, changes_of
from tests.example_records import make_record
from tests.tables.test_ablations import rows, with_recipe, words

TODAY = MethodPresets(
    defaults={"method.out_dim": 1024, "method.target_momentum": 0.996, "method.crop_px": None},
    vit_defaults={"backbone.positions": "dino"},
    presets={
        "small-data": PresetValues(values={"method.target_momentum": 0.999, "training.batch_size": 32}, steps=1500)
    },
)


def today(method: str) -> MethodPresets:
    return TODAY


def run(name: str, *by_hand: str, seed: int = 0, method: str = "byol", **settings: Any) -> RunRecord:
    """A laptop run, 4 blocks of deit_ti16; `by_hand` are the settings that were none of its preset's then."""
    settings = {"target_momentum": 0.999} | settings
    plain = make_record(method, "deit_ti16", seed, settings=settings)
    network = {"name": "deit_ti16", "settings": {"depth": 4, "positions": "dino"}}
    record = with_recipe(plain, "backbone", network)
    changed = {f"method.{one}": settings[one] for one in by_hand} | {"backbone.depth": 4}
    return record.model_copy(update={"run_id": name, "changed_settings": changed})


def table_of(name: str, *records: RunRecord) -> Table:
    return fold(load_table(name).description, [RecordFacts(record, today) for record in records])


def runs_of(table: Table) -> list[tuple[str, ...]]:
    return [row.runs for row in rows(table)]


EARLIER = run("earlier", target_momentum=0.99)
"""Of the preset as it was."""
BY_HAND = run("by-hand", "target_momentum")
"""Set what the preset says today."""
NEW = run("new", seed=1)
OTHER = run("other", "target_momentum", target_momentum=0.9)


@pytest.mark.parametrize(
    ("record", "changes"),
    [
        (NEW, Changes(frozenset({"backbone.depth"}))),
        (BY_HAND, Changes(frozenset({"backbone.depth"}))),
        (EARLIER, Changes(frozenset({"backbone.depth"}), frozenset({"method.target_momentum"}))),
        (OTHER, Changes(frozenset({"backbone.depth", "method.target_momentum"}))),
    ],
    ids=lambda value: getattr(value, "run_id", ""),
)
def test_changes_are_those_of_todays_preset(record: RunRecord, changes: Changes) -> None:
    assert changes_of(record, today) == changes


def test_epochs_that_follow_from_the_preset_are_no_change() -> None:
    """1,500 steps of 32 of 4,000 images are 12 epochs."""
    old = NEW.model_copy(update={"changed_settings": None, "command": "sslbench run byol --epochs 12"})
    assert changes_of(old, today) == Changes(frozenset())
    shorter = with_recipe(old, "training", {**old.recipe["training"], "epochs": 3})
    shorter = shorter.model_copy(update={"changed_settings": None})
    assert changes_of(shorter, today).by_hand == {"training.epochs"}


@pytest.mark.parametrize("name", ["components", "comparison"])
def test_the_run_of_todays_preset_fills_the_row_in_any_order(name: str) -> None:
    tables = [table_of(name, *records) for records in permutations([EARLIER, BY_HAND, NEW])]
    assert all(table == tables[0] for table in tables)
    assert runs_of(tables[0]) == [("by-hand", "new")]
    assert "method.target_momentum" not in rows(tables[0])[0].settings
    notes = " ".join(tables[0].blocks[0].notes)
    assert "presets have changed since and newer runs are there: earlier (method.target_momentum=0.99)" in notes


@pytest.mark.parametrize("name", ["components", "comparison"])
def test_an_earlier_run_stands_where_there_is_no_newer_one(name: str) -> None:
    assert runs_of(table_of(name, EARLIER)) == [("earlier",)]


def test_without_knowledge_of_todays_preset_records_are_taken_at_their_word() -> None:
    table = fold(load_table("components").description, [EARLIER, BY_HAND])
    assert runs_of(table) == [("earlier",)], "BY_HAND changes a setting, as its record says"


def test_a_method_with_other_settings_is_no_row_of_the_comparison() -> None:
    longer = with_recipe(NEW, "training", {**NEW.recipe["training"], "epochs": 50}, **{"training.epochs": 50})
    longer = longer.model_copy(update={"run_id": "longer"})
    table = table_of("comparison", NEW, longer, OTHER, run("dino", method="dino"))
    assert sorted(runs_of(table)) == [("dino",), ("longer",), ("new",)], "how long one trains is the user's choice"
    (note,) = [note for note in table.blocks[0].notes if "other settings" in note]
    assert note == "byol on deit_ti16 with other settings is no row of this table: method.target_momentum=0.9"


def test_a_method_with_other_settings_alone_is_shown() -> None:
    other_data = make_record("byol", "deit_ti16", data={"name": "photos", "fingerprint": "beef" * 8})
    assert ("other",) in runs_of(table_of("comparison", OTHER, other_data))


def test_single_ablations_do_not_stand_beside_the_unchanged_run() -> None:
    """Patch size: runs of DINO with another loss or teacher have the patches of a row, too."""
    plain = run("plain", method="dino")
    ablations = [run(f"a{number}", "loss", method="dino", loss=name) for number, name in enumerate(("mse", "x"))]
    table = table_of("patch_size", plain, *ablations)
    assert runs_of(table) == [("plain",)]
    assert "left out: 2 runs that differ from these in further settings (method.loss=mse, method.loss=x)" in (
        table.blocks[0].notes
    )
    assert words(table) == ["ViT-B/16"]
