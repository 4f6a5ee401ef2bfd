"""`sslbench figure`: files that it writes, what it refuses, and the committed figures from the committed records."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.figures.runs import write_run

RESULTS = Path(__file__).parent.parent.parent / "results"


def test_the_committed_values_are_those_of_the_committed_records(sslbench: Command, tmp_path: Path) -> None:
    status, _, err = sslbench("figure", "--results", str(RESULTS), "--out", str(tmp_path), "--format", "svg")
    assert (status, err) == (0, "")
    committed, rebuilt = (
        {path.name: path.read_bytes() for path in folder.glob("*.csv")} for folder in (RESULTS / "figures", tmp_path)
    )
    assert committed == rebuilt, "sslbench figure writes them again"


def test_the_curves_of_runs_and_of_one_that_still_trains(sslbench: Command, tmp_path: Path) -> None:
    write_run(tmp_path, "dino-a", logged={"loss": [3.0, 2.0]})
    live = tmp_path / "runs" / "dino-b"
    live.mkdir()
    (live / "run.json").write_text("{}")
    (live / "metrics.jsonl").write_text('{"step": 0, "epoch": 0, "loss": 5.0}\n{"step": 1, "epo')
    status, out, _ = sslbench("figure", "curves", "dino-a", "dino-b", "--results", str(tmp_path), "--values", "loss")
    assert status == 0
    assert f"written: {tmp_path / 'figures' / 'curves.png'}, {tmp_path / 'figures' / 'curves.csv'}" in out
    with (tmp_path / "figures" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["line"], row["x"], row["y"]) for row in rows] == [("1", "1", "3"), ("1", "2", "2"), ("2", "1", "5")]
    status, out, _ = sslbench("figure", "curves", "dino-a", "--results", str(tmp_path), "--format", "pdf")
    assert status == 0
    assert (tmp_path / "figures" / "curves-dino-a.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("voc_jacard",), "no figure is called 'voc_jacard'. Did you mean 'voc_jaccard'"),
        (("voc_jaccard", "--format", "gif"), "no format is called 'gif'"),
        (("curves",), "figure curves needs runs"),
        (("curves", "nothing"), "no run is called 'nothing'"),
        (("curves", "dino-a", "--values", ","), "--values names no curve"),
        (("curves", "dino-a", "--where", "method=dino"), "--where is for figures of tables"),
        (("voc_jaccard", "dino-a"), "only figure curves takes runs"),
        (("voc_jaccard", "--values", "loss"), "--values is for"),
        (("voc_jaccard", "--where", "method=byol"), "no record has method = 'byol'"),
        (("missing.toml",), "cannot read the figure description missing.toml"),
    ],
)
def test_a_mistake_is_one_message(sslbench: Command, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    write_run(tmp_path, "dino-a", logged={"loss": [3.0]})
    status, _, err = sslbench("figure", *arguments, "--results", str(tmp_path))
    assert status == 2
    assert said in err
    assert err.count("error:") == 1
    assert not (tmp_path / "figures").exists()


FIGURE = """
id = "losses"
title = "Losses"
table = "comparison"
kind = "lines"
series = ["method"]
[[panel]]
y = "step:loss"
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("step:loss", "step:los"), "no curve is called 'step:los'. Did you mean 'step:loss'?"),
        (("step:loss", "epoch:knn.f1"), "no curve is called 'epoch:knn.f1'"),
        (('y = "step:loss"', 'y = "step:loss"\npublished = "knn_tesis"'), "Did you mean 'knn_thesis'?"),
        (('"losses"', '"collapse"'), "id = 'collapse' is one of sslbench's own figures"),
    ],
)
def test_a_figure_of_ones_own_that_shows_nothing_is_a_mistake(
    sslbench: Command, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    write_run(tmp_path, "dino-a", logged={"loss": [3.0]})
    (tmp_path / "mine.toml").write_text(FIGURE)
    status, _, err = sslbench("figure", "mine.toml", "--results", str(tmp_path))
    assert status == 0, err
    (tmp_path / "wrong.toml").write_text(FIGURE.replace(*change))
    status, _, err = sslbench("figure", "wrong.toml", "--results", str(tmp_path))
    assert status == 2
    assert said in err


def test_nothing_to_draw_is_said(sslbench: Command, tmp_path: Path) -> None:
    status, out, _ = sslbench("figure", "--results", str(tmp_path))
    assert status == 0
    assert "nothing drawn. Make the first" in out
    write_run(tmp_path, "dino-a")
    status, out, _ = sslbench("figure", "voc_jaccard", "--results", str(tmp_path))
    assert status == 0
    assert "none of the 1 records" in out


def test_figures_are_made_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom ssl_bench.cli.main import app\n"
        f"try:\n    app(['figure', '--results', {str(RESULTS)!r}, '--out', {str(tmp_path)!r}])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print('LOADED', [m for m in sys.modules if m in ('torch', 'timm', 'ssl_bench_plugins')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("LOADED []")
