"""`sslbench table --check`: whether written tables are what the records give, and which record or file was changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssl_bench.measurement import Protocol, accuracy_of
from ssl_bench.records.beside import changed_files
from ssl_bench.records.outcomes import write_outcomes
from ssl_bench.records.record import CurvesRecord, StepCurvesRecord, write_record
from tests.conftest import Command
from tests.example_records import make_record
from tests.test_architecture import ROOT


@pytest.fixture
def results(sslbench: Command, tmp_path: Path) -> Path:
    """Two runs and their tables."""
    for seed in (0, 1):
        record = make_record(seed=seed)
        write_record(record, tmp_path / "results/runs" / record.run_id / "record.json")
    assert sslbench("table", "--results", tmp_path / "results")[0] == 0
    return tmp_path / "results"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_committed_tables_are_what_the_committed_records_give(sslbench: Command) -> None:
    status, out, err = sslbench("table", "--check", "--results", ROOT / "results")
    assert (status, err) == (0, ""), f"make them again with `sslbench table`:\n{out}"


def test_tables_that_were_just_written_have_not_drifted(sslbench: Command, results: Path) -> None:
    before = contents(results)
    status, out, err = sslbench("table", "--check", "--results", results)
    assert (status, err) == (0, "")
    assert "as the records give" in out
    assert contents(results) == before


def test_an_edited_table_is_shown_and_nothing_is_written(sslbench: Command, results: Path) -> None:
    table = results / "tables/comparison.md"
    table.write_text(table.read_text().replace("40.0", "41.0"))
    (results / "tables/comparison.csv").unlink()
    before = contents(results)
    status, out, _ = sslbench("table", "--check", "--results", results)
    assert status == 1
    assert f"{table} is not what the records give" in out
    assert any(line.startswith("  -") and "41.0" in line for line in out.splitlines())
    assert any(line.startswith("  +") and "40.0" in line for line in out.splitlines())
    assert f"{results}/tables/comparison.csv is not what the records give:\n  it is missing" in out
    assert contents(results) == before
    status, out, _ = sslbench("table", "comparison", "--check", "--json", "--results", results)
    assert status == 1
    assert list(json.loads(out)["differ"]) == [str(table), str(results / "tables/comparison.csv")]


def test_a_table_without_records_is_a_leftover(sslbench: Command, results: Path) -> None:
    (results / "tables/davis.md").write_text("# old\n")
    status, out, _ = sslbench("table", "--check", "--results", results)
    assert status == 1
    assert "davis.md is not what the records give:\n  no record counts for this table" in out


def test_an_edited_record_is_named(sslbench: Command, results: Path) -> None:
    path = next(results.glob("runs/*s1*/record.json"))
    path.write_text(path.read_text().replace('"value": 40.0', '"value": 49.0'))
    status, out, err = sslbench("table", "--check", "--results", results)
    assert status == 1
    assert str(path) in err
    assert "was edited" in err
    assert "comparison.csv is not what the records give" in out


def test_views_are_not_checked(sslbench: Command, results: Path) -> None:
    status, _, err = sslbench("table", "--check", "--where", "method=dino", "--results", results)
    assert status == 2
    assert "leave --where and --sort out" in err


@pytest.mark.parametrize("name", ["curves.json", "steps.csv", "evaluations/knn-outcomes.safetensors"])
def test_a_changed_file_beside_a_record_is_named(name: str, sslbench: Command, tmp_path: Path) -> None:
    folder = tmp_path / "results/runs/one"
    folder.mkdir(parents=True)
    record = make_record(run_id="one")
    outcomes = write_outcomes(folder, "evaluations/knn", [accuracy_of("m", [True, False], protocol=Protocol(text="p"))])
    assert outcomes is not None
    curves = CurvesRecord(file="curves.json", sha256=outcomes.sha256, evaluated_steps=(), summaries=())
    steps = StepCurvesRecord(file="steps.csv", sha256=outcomes.sha256, steps_per_row=1, rows=1, names=())
    first, *others = record.evaluations
    evaluations = (first.model_copy(update={"outcomes": outcomes}), *others)
    record = record.model_copy(update={"curves": curves, "step_curves": steps, "evaluations": evaluations})
    whole = (folder / outcomes.file).read_bytes()
    for file in ("curves.json", "steps.csv"):
        (folder / file).write_bytes(whole)
    write_record(record, folder / "record.json")
    assert changed_files(record, folder) == []
    (folder / name).write_bytes(whole[:-1])
    (line,) = changed_files(record, folder)
    assert line.startswith(f"{folder / name} was changed")
    status, out, err = sslbench("table", "comparison", "--results", tmp_path / "results")
    assert status == 1
    assert str(folder / name) in err
    assert "40.0" in out, "the record itself is whole and counts"
    (folder / name).unlink()
    assert changed_files(record, folder) == [], "records are kept without what lies beside them"
