"""docs/ablations.md is followed to its end: its files are read, run at a tiny size, tabulated and drawn."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from ssl_bench.studies import trial
from ssl_bench.studies.cells import Wish
from ssl_bench.studies.study import load_study, planned
from tests.conftest import Command
from tests.studies.tiny import SETTINGS

PAGE = Path(__file__).parents[2] / "docs" / "ablations.md"
BLOCKS = re.findall(r"```toml\n# ([^\n]+)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
FILES = {name: text for name, text in BLOCKS if name.endswith(".toml") and " " not in name}
TINY = SETTINGS | {
    "training.epochs": 1,
    "training.eval_every": "none",
    "method.out_dim": 16,
    "method.hidden_dim": 16,
    "method.bottleneck_dim": 8,
    "evaluators.linear-probe.epochs": 1,
}


def write_files(folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).write_text(text)


def test_the_pages_files_become_a_table_and_a_figure(
    sslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three runs of a second each, from the server process that real runs are forked from; none is tried before."""
    monkeypatch.setattr(trial, "MOST_SECONDS", 0.0)
    write_files(tmp_path)
    assert list(FILES) == ["crops.toml", "crops-figure.toml"]
    words = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    status, out, err = sslbench("bench", "crops.toml", "--seeds", "1", *words)
    assert status == 0, err
    rows = [line for line in out.splitlines() if line.startswith("| 2 large")]
    assert [row.split("|")[1].strip() for row in rows] == ["2 large, 6 small", "2 large, 2 small", "2 large"]
    assert all("→" in row for row in rows), "k-NN before and after training"
    status, out, err = sslbench("figure", "crops-figure.toml")
    assert status == 0, err
    with (tmp_path / "results" / "figures" / "crops.csv").open() as file:
        series = [row["series"] for row in csv.DictReader(file) if row["series"]]
    assert [name.partition(" (")[0] for name in series] == ["2 large, 6 small", "2 large, 2 small", "2 large"]


def test_the_pages_size_of_ones_own_takes_the_place_of_the_included_ones(tmp_path: Path) -> None:
    size = dict(BLOCKS)["a size of your own, in crops.toml"].replace('"~/photos"', '"shapes"')
    text = FILES["crops.toml"]
    include = next(line for line in text.splitlines() if "included/sizes.toml" in line)
    (tmp_path / "own.toml").write_text(text.replace(include, "") + size)
    cells = planned(load_study(str(tmp_path / "own.toml")), Wish())
    assert len(cells.runs) == 3 * 2
    assert {run.recipe.training.epochs for run in cells.runs} == {20}
    assert {tuple(part.name for part in run.recipe.evaluators) for run in cells.runs} == {("knn",)}
