"""`sslbench bench` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Command
from tests.studies.tiny import TABLE, write_table


def test_a_study_runs_to_its_table_and_the_second_time_only_prints_it(sslbench: Command, tmp_path: Path) -> None:
    """With the server process that real runs are forked from."""
    table = write_table(tmp_path)
    status, out, err = sslbench("bench", table, "--seeds", "1", "--dry-run")
    assert status == 0, err
    assert "2 runs, 2 to do" in out
    assert "contrast, seed 0" in out
    assert not (tmp_path / "results").exists()

    status, out, err = sslbench("bench", table, "--seeds", "1")
    assert status == 0, err
    assert "[2/2] contrast, seed 0: done in" in out
    assert "# A tiny table" in out
    assert "| simclr |" in out
    records = {path: path.read_bytes() for path in tmp_path.glob("results/runs/*/record.json")}
    assert len(records) == 2

    status, out, err = sslbench("bench", table, "--seeds", "1")
    assert status == 0, err
    assert "2 runs, 2 done" in out
    assert "| simclr |" in out
    assert all(path.read_bytes() == content for path, content in records.items())

    (curves,) = {path.with_name("steps.csv") for path in records if path.with_name("steps.csv").exists()}
    curves.write_text(curves.read_text() + "1,1,0\n")
    _, _, err = sslbench("bench", table, "--seeds", "1")
    assert str(curves.relative_to(tmp_path)) in err, "as `table` warns of a file that was changed"

    status, out, err = sslbench("bench", table, "--seeds", "2", "--dry-run")
    assert status == 0, err
    assert "2 done, 2 to do" in out
    assert "measured" in out
    assert "memory" in out
    status, out, err = sslbench("bench", table, "--budget", "1s")
    assert status == 2
    assert "less than the shortest run that is missing: " in err
    assert ", seed 1 takes about" in err, "which of the two is shorter depends on how busy the machine was"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name of a study"),
        (("comparisn",), "Did you mean 'comparison'"),
        (("missing.toml",), "missing.toml"),
        (("label_free",), "nothing says which runs"),
        (("tiny.toml", "--jobs", "0"), "--jobs 0: give 1 or more"),
        (("tiny.toml", "--seeds", "-1"), "--seeds -1: give 1 or more"),
        (("tiny.toml", "--budget", "soon"), "--budget 'soon' is not a time"),
        (("tiny.toml", "--size", "huge"), "'huge'"),
        (("tiny.toml", "--set", "method.local_view=1"), "method.local_view"),
        (("tiny.toml", "--set", "training"), "KEY=VALUE"),
        (("tiny.toml", "--data", "no/such/folder"), "does not exist"),
        (("empty.toml",), "variant"),
        (("broken.toml",), "broken.toml is not TOML"),
    ],
)
def test_a_mistake_is_answered_before_anything_starts(
    sslbench: Command, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    write_table(tmp_path)
    write_table(tmp_path, TABLE.partition("[[runs.variant]]")[0], "empty")
    write_table(tmp_path, TABLE + "[[", "broken")
    status, out, err = sslbench("bench", *words)
    assert status == 2, (out, err)
    assert message.lower() in err.lower()
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists()


def test_list_shows_what_can_be_run(sslbench: Command) -> None:
    status, out, _ = sslbench("bench", "--list")
    assert status == 0
    assert out.startswith("thesis")
