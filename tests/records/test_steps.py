"""steps.csv: bins against numpy, what is read back, its size, and files that are not it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_bench.errors import UserError
from ssl_bench.records import steps as module
from ssl_bench.records.steps import read_step_curves, summarize_step_curves, thinned, write_step_curves


def rows(count: int, *, per_epoch: int = 10, sparse: int = 3) -> list[dict[str, float]]:
    """`count` steps with a loss, and a spread at every `sparse`-th of them."""
    made = []
    for step in range(count):
        row = {"step": step, "epoch": step // per_epoch, "loss": math.sin(step) + 5}
        made.append(row | ({"spread": float(step)} if step % sparse == 0 else {}))
    return made


@given(
    count=st.integers(1, 200),
    most_rows=st.integers(1, 30),
    most_values=st.integers(4, 100),
    lost=st.sets(st.integers(0, 199), max_size=20),
)
def test_rows_are_means_over_the_fewest_steps_that_fit(
    count: int, most_rows: int, most_values: int, lost: set[int]
) -> None:
    given_rows = [row for row in rows(count) if row["step"] not in lost]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_ROWS", most_rows)
        patch.setattr(module, "MAX_VALUES", most_values)
        found = thinned(given_rows)
    names = {name for row in given_rows for name in row} - {"step", "epoch"}

    def bins(width: int) -> list[list[dict[str, float]]]:
        by_bin: dict[int, list[dict[str, float]]] = {}
        for row in given_rows:
            by_bin.setdefault(int(row["step"]) // width, []).append(row)
        return list(by_bin.values())

    def fits(width: int) -> bool:
        return len(bins(width)) <= most_rows and len(bins(width)) * len(names) <= most_values

    width = next(2**power for power in range(20) if fits(2**power) or len(bins(2**power)) == 1) if given_rows else 1
    assert found.steps_per_row == width
    assert set(found.values) == names
    expected = bins(width)
    assert found.steps == tuple(int(group[-1]["step"]) + 1 for group in expected)
    assert found.epochs == tuple(int(group[-1]["epoch"]) + 1 for group in expected)
    for name in names:
        for value, group in zip(found.values[name], expected, strict=True):
            logged = [row[name] for row in group if name in row]
            assert (value is None) == (not logged)
            assert value is None or value == pytest.approx(float(np.mean(logged)), rel=1e-12)


def test_what_is_written_is_read_back_to_eight_digits(tmp_path: Path) -> None:
    curves = thinned([{"step": 0, "epoch": 0, "a": 1 / 3, 'b, "c"': math.nan}, {"step": 1, "epoch": 0, "a": -math.inf}])
    write_step_curves(tmp_path, curves)
    found = read_step_curves(tmp_path)
    assert (found.total_steps, found.steps_per_row, found.steps, found.epochs) == (2, 1, (1, 2), (1, 1))
    assert found.values["a"] == (pytest.approx(1 / 3, rel=1e-8), -math.inf)
    assert math.isnan(found.values['b, "c"'][0] or 0)
    assert found.values['b, "c"'][1] is None
    assert found.curve("a") == [(1, pytest.approx(1 / 3, rel=1e-8)), (2, -math.inf)]
    assert found.curve("unknown") == []
    record = summarize_step_curves(tmp_path)
    assert record is not None
    assert read_step_curves(tmp_path, record.sha256) == found or math.isnan(found.values['b, "c"'][0] or 0)
    assert (record.rows, record.names) == (2, ("a", 'b, "c"'))


@pytest.mark.parametrize("names", [1, 12, 100])
def test_the_file_stays_small(tmp_path: Path, names: int) -> None:
    values = {f"value_{name}": -math.pi * 1e-7 for name in range(names)}
    curves = thinned({"step": step, "epoch": 0, **values} for step in range(4100))
    write_step_curves(tmp_path, curves)
    assert (tmp_path / "steps.csv").stat().st_size < 600_000
    assert len(curves.steps) <= 2000
    assert len(curves.steps) * names > 32_000 / 4 or names == 1


def test_a_run_without_steps_has_no_file(tmp_path: Path) -> None:
    write_step_curves(tmp_path, thinned([]))
    assert not (tmp_path / "steps.csv").exists()
    assert summarize_step_curves(tmp_path) is None
    with pytest.raises(UserError, match=r"steps.csv is missing: the record has its SHA-256"):
        read_step_curves(tmp_path, "0" * 64)


FIRST = "# sslbench steps 1: mean of 1 step a row, 2 steps\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is damaged .its first line is"),
        (b"step,epoch,loss\n1,1,2\n", "is damaged .its first line is 'step"),
        (b"# sslbench steps 9: anything\n", "written by a newer sslbench .version 9"),
        (f"{FIRST}epoch,step,loss\n1,1,2\n".encode(), "its columns are epoch, step"),
        (f"{FIRST}step,epoch,loss,loss\n1,1,2,2\n".encode(), "its columns are"),
        (f"{FIRST}step,epoch,loss\n1,1\n".encode(), "its rows differ in length"),
        (f"{FIRST}step,epoch,loss\n1,1,x\n".encode(), "could not convert"),
        (f"{FIRST}step,epoch,loss\n2,1,1\n1,1,1\n".encode(), "its steps do not grow"),
        (f"{FIRST}".encode(), "is damaged"),
        (b"\xff\xfe", "is damaged"),
    ],
)
def test_a_file_that_is_not_one_is_one_message(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "steps.csv").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_step_curves(tmp_path)


def test_an_edited_file_is_not_the_records(tmp_path: Path) -> None:
    write_step_curves(tmp_path, thinned(rows(4)))
    record = summarize_step_curves(tmp_path)
    assert record is not None
    path = tmp_path / "steps.csv"
    path.write_bytes(path.read_bytes().replace(b"5,", b"6,"))
    with pytest.raises(UserError, match="not the file that the record names"):
        read_step_curves(tmp_path, record.sha256)
