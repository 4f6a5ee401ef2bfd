"""Raw pixels and supervised training stand below tables that have no row of them, measured as the rows are."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssl_bench.records.record import RunRecord
from ssl_bench.tables.fold import fold
from ssl_bench.tables.loading import parse_description
from tests.example_records import evaluations, make_record

TABLES = Path(__file__).parents[2] / "results" / "tables"
DESCRIPTION = parse_description(
    """
id = "teachers"
title = "Teachers"
row = [{ id = "momentum", from = "recipe.method.settings.teacher" }]
filter = { "method" = ["dino"] }
column = [
  { id = "knn", title = "k-NN", unit = "%", from = "measurement:knn.primary:trained" },
  { id = "linear", title = "linear", unit = "%", from = "measurement:linear-probe.primary:trained" },
]
""",
    "teachers.toml",
)


def with_network(record: RunRecord, name: str, parameters: int) -> RunRecord:
    backbone = record.backbone.model_copy(update={"name": name, "parameters": parameters})
    return record.model_copy(update={"backbone": backbone, "run_id": f"{record.run_id}-{name}-{parameters}"})


def notes_of(*records: RunRecord) -> list[str]:
    (block,) = fold(DESCRIPTION, records).blocks
    return [note.removeprefix("to compare with, on the same data: ") for note in block.notes if "to compare" in note]


def supervised(seed: int, knn: float, **changes: object) -> RunRecord:
    return make_record("supervised", seed=seed, evaluations=evaluations((30, knn), (35, 70)), **changes)


def test_the_mean_over_seeds_of_the_same_network_and_raw_pixels() -> None:
    rows = [make_record("dino", seed=seed, settings={"teacher": "momentum"}) for seed in (0, 1)]
    pixels = with_network(make_record("random", evaluations=evaluations((21.25, 21.25), None)), "pixels", 0)
    untrained = pixels.training.model_copy(update={"steps": 0, "epochs": 0.0}) if pixels.training else None
    pixels = pixels.model_copy(update={"training": untrained})
    assert notes_of(*rows) == []
    assert notes_of(*rows, pixels, supervised(0, 60.0), supervised(1, 62.0)) == [
        "raw pixels: k-NN 21.2; supervised training of the same network: k-NN 61.0 (2 seeds), linear 70.0 (2 seeds)"
    ]


def test_what_is_not_measured_alike_is_no_yardstick() -> None:
    row = make_record("dino", settings={"teacher": "momentum"})
    other_network = with_network(supervised(0, 60.0), "resnet18", 5)
    by_hand = supervised(1, 60.0, changed_settings={"training.epochs": 500, "training.seed": 1})
    bigger = supervised(2, 60.0, changed_settings={"data.image_px": 32, "training.seed": 2})
    failed = supervised(3, 60.0).model_copy(update={"status": "failed"})
    otherwise = make_record("supervised", seed=4, evaluations=evaluations((30, 60), (35, 70), protocol="another"))
    elsewhere = make_record("supervised", seed=5, evaluations=evaluations((1, 60), (2, 70), data_fingerprint="0f" * 16))
    assert notes_of(row, other_network, by_hand, failed, otherwise, elsewhere) == []
    assert notes_of(row, bigger) == ["supervised training of the same network: k-NN 60.0, linear 70.0"]


@pytest.mark.parametrize("path", sorted(TABLES.glob("*.md")), ids=lambda path: path.stem)
def test_a_committed_table_of_networks_trained_on_shapes_has_a_floor_and_a_ceiling(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if "k-NN %" in text and "## shapes (synthetic)" in text:
        assert "supervised" in text
        assert "raw pixels: " in text or "| pixels" in text
