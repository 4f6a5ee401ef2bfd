"""`sslbench table`, `show` and `list` as a user types them: in a process of their own where imports count."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ssl_bench import registry
from ssl_bench.records.record import write_record
from tests.example_records import evaluation, make_record, measured

METHODS = "[ssl_bench.methods.v1]\n"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed in (0, 1):
        record = make_record(seed=seed, knn=(30.0, 40.0 + seed))
        write_record(record, tmp_path / "results" / "runs" / record.run_id / "record.json")
    return tmp_path / "results"


# table


def test_table_prints_markdown_and_writes_both_files(sslbench: Any, results: Path) -> None:
    status, out, err = sslbench("table", "--results", results)
    assert (status, err) == (0, "")
    assert "30.0 → 40.5±0.7" in out
    assert "barlow_twins" not in out
    assert "25 printed rows" in out
    assert f"written: {results / 'tables' / 'comparison.md'}, {results / 'tables' / 'comparison.csv'}" in out
    assert "barlow_twins" in (results / "tables" / "comparison.md").read_text()
    assert (results / "tables" / "comparison.csv").read_text().startswith("kind,data,synthetic")


def test_table_twice_gives_the_same_bytes(sslbench: Any, results: Path) -> None:
    sslbench("table", "--results", results)
    files = [results / "tables" / name for name in ("comparison.md", "comparison.csv")]
    before = [path.read_bytes() for path in files]
    sslbench("table", "--results", results)
    assert [path.read_bytes() for path in files] == before


def test_table_without_records_says_what_makes_the_first_and_writes_nothing(sslbench: Any, tmp_path: Path) -> None:
    status, out, _ = sslbench("table", "--results", tmp_path)
    assert status == 0
    assert "barlow_twins" in out
    assert "sslbench run dino --arch deit_s16" in out
    assert list(tmp_path.iterdir()) == []


def test_table_leaves_out_what_it_cannot_read_and_says_so(sslbench: Any, results: Path) -> None:
    for name, content in (("cut", '{"run_id'), ("newer", '{"schema_version": 99}')):
        (results / "runs" / name).mkdir()
        (results / "runs" / name / "record.json").write_text(content)
    status, out, err = sslbench("table", "--results", results)
    assert status == 1
    assert "40.5±0.7" in out
    lines = err.splitlines()
    assert len(lines) == 2
    assert "cut/record.json is damaged" in lines[0]
    assert "newer/record.json was written by a newer sslbench" in lines[1]
    assert (results / "tables" / "comparison.md").exists()


def test_table_of_ones_own_and_a_filter_that_nothing_passes(sslbench: Any, results: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'id = "own"\ntitle = "Own"\nfilter = { method = "byol" }\nrow = [{ id = "seed", from = "seed" }]\n'
        'column = [{ id = "loss", title = "loss", from = "training.final_logs.loss", decimals = 2 }]\n'
    )
    status, out, _ = sslbench("table", own, "--results", results)
    assert status == 0
    assert "none of the 2 records" in out
    own.write_text(own.read_text().replace("byol", "dino"))
    status, out, _ = sslbench("table", own, "--results", results)
    assert "5.31" in out
    assert (results / "tables" / "own.csv").exists()


def test_table_mistakes(sslbench: Any, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, _, err = sslbench("table", "comparision", "--results", results)
    assert status == 2
    assert "Did you mean 'comparison'?" in err

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = sslbench("table", "--results", results)
    assert status == 2
    assert "No space left" in err
    assert list((results / "tables").iterdir()) == []


def test_table_where_no_folder_can_be_made(sslbench: Any, results: Path) -> None:
    (results / "tables").write_text("in the way")
    status, _, err = sslbench("table", "--results", results)
    assert status == 2
    assert "cannot make the folder" in err


def test_table_list(sslbench: Any) -> None:
    status, out, _ = sslbench("table", "--list")
    assert status == 0
    assert out.startswith("comparison  ")


# show


def test_show_by_id_beginning_folder_and_file(sslbench: Any, results: Path) -> None:
    folder = results / "runs" / "dino-deit_s16-shapes-s0-1024"
    outputs = {
        sslbench("show", given, "--results", results)
        for given in (folder.name, "dino-deit_s16-shapes-s0", folder, folder / "record.json")
    }
    ((status, out, err),) = outputs
    assert (status, err) == (0, "")
    for words in (
        "dino-deit_s16-shapes-s0-1024  finished",
        "preset small-data: 4,000 training images are fewer than 20,000",
        "shapes (synthetic): 4,000 training",
        "1,500 steps, 12 epochs, seed 0, 0:09:00 h, 88.9 images/s, peak memory 812 MiB",
        "503 images/s at 128 per forward pass",
        "20-NN, cosine",
        "method.out_dim = 1024",
        "evaluators.knn.k = 20",
        "sslbench run dino --arch deit_s16 --seed 0",
    ):
        assert words in out
    assert [line.split()[3:5] for line in out.splitlines() if "knn top1_k20" in line] == [["30.00", "40.00"]]


def test_show_json_is_the_record_with_later_evaluations(sslbench: Any, results: Path) -> None:
    folder = results / "runs" / "dino-deit_s16-shapes-s0-1024"
    write_record(evaluation("voc-jaccard", "trained", measured(45.8)), folder / "evaluations" / "voc.json")
    status, out, _ = sslbench("show", folder.name, "--json", "--results", results)
    assert status == 0
    assert json.loads(out)["run_id"] == folder.name
    assert json.loads(out)["evaluations"][-1]["evaluator"] == "voc-jaccard"
    (folder / "evaluations" / "cut.json").write_text("{")
    status, out, err = sslbench("show", folder.name, "--results", results)
    assert status == 1
    assert "voc-jaccard" in out
    assert "cut.json is damaged" in err


def test_show_a_failed_run_says_why(sslbench: Any, results: Path) -> None:
    record = make_record(run_id="bad", status="failed", status_reason="the loss is nan at step 3", evaluations=())
    write_record(record, results / "runs" / "bad" / "record.json")
    status, out, _ = sslbench("show", "bad", "--results", results)
    assert status == 0
    assert "bad  failed: the loss is nan at step 3" in out
    assert "nothing was measured" in out


def test_show_an_unfinished_run_says_how_to_go_on(sslbench: Any, results: Path) -> None:
    folder = results / "runs" / "stopped"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    status, out, _ = sslbench("show", "stopped", "--results", results)
    assert status == 1
    assert f"sslbench run --resume {folder}" in out


def test_show_mistakes(sslbench: Any, results: Path) -> None:
    status, _, err = sslbench("show", "dino-deit_s16-shapes-s9-1024", "--results", results)
    assert status == 2
    assert "Did you mean 'dino-deit_s16-shapes-s" in err
    status, _, err = sslbench("show", "dino", "--results", results)
    assert status == 2
    assert all(f"dino-deit_s16-shapes-s{seed}-1024" in err for seed in (0, 1))
    status, _, err = sslbench("show", "dino", "--results", results / "none")
    assert status == 2
    assert "no run" in err


def test_show_a_damaged_record(sslbench: Any, results: Path) -> None:
    (results / "runs" / "dino-deit_s16-shapes-s0-1024" / "record.json").write_text("{")
    status, _, err = sslbench("show", "dino-deit_s16-shapes-s0", "--results", results)
    assert status == 2
    assert "is damaged" in err


# list


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("alice", "bob"):
        info = tmp_path / f"{name}_bench-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-bench\nVersion: 1.0\n")
        broken = "broken_dense = list_third_party:X\n" if name == "bob" else ""
        (info / "entry_points.txt").write_text(f"{METHODS}dense = list_third_party:Dense\n{broken}")
    (tmp_path / "list_third_party.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.refresh()
    yield tmp_path
    registry.refresh()


def test_list_names_kinds_origin_and_paper(sslbench: Any) -> None:
    status, out, _ = sslbench("list")
    assert status == 0
    kinds = [f"{kind}s" for kind in registry.KINDS]
    assert [line for line in out.splitlines() if line[:1].strip()] == [*kinds, "weights"]
    (dino,) = [line for line in out.splitlines() if line.startswith("  dino ")]
    assert "sslbench 0." in dino
    assert "arXiv 2104.14294" in dino


@pytest.mark.parametrize("kind", ["backbones", "backbone", "Backbones"])
def test_list_one_kind(sslbench: Any, kind: str) -> None:
    status, out, _ = sslbench("list", kind)
    assert status == 0
    assert out.startswith("backbones\n")
    assert "methods" not in out.splitlines()


def test_list_an_unknown_kind(sslbench: Any) -> None:
    status, _, err = sslbench("list", "metods")
    assert status == 2
    assert "Did you mean 'methods'?" in err


def test_list_shows_conflicts_and_check_finds_what_is_broken(sslbench: Any, third_party: Path) -> None:
    status, out, err = sslbench("list", "methods")
    assert (status, err) == (0, "")
    clashing = [line for line in out.splitlines() if line.startswith("  dense ") and "BROKEN" in line]
    assert ["bob-bench 1.0 has this name, too" in line for line in clashing] == [True, False]
    assert "alice-bench 1.0 has this name, too: uninstall bob-bench, or rename its entry point" in clashing[1]
    status, out, err = sslbench("list", "methods", "--check")
    assert status == 1
    assert "  dino " in out
    assert "method dense of alice-bench 1.0, method dense of bob-bench 1.0" in err
    (line,) = [line for line in out.splitlines() if line.startswith("  broken_dense ")]
    assert "RuntimeError: imported" in line


def test_list_table_and_show_import_neither_plugins_nor_torch_nor_pandas(results: Path, third_party: Path) -> None:
    code = (
        f"import sys\nsys.path.insert(0, {str(third_party)!r})\nfrom ssl_bench.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "names = ('torch', 'timm', 'pandas', 'ssl_bench_plugins', 'list_third_party')\n"
        "print('LOADED', [m for m in names if m in sys.modules])"
    )
    for arguments in (
        ["list"],
        ["table", "--results", str(results)],
        ["show", "dino-deit_s16-shapes-s0", "--results", str(results)],
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("verb", ["list", "show", "table"])
def test_help_ends_with_an_example(sslbench: Any, verb: str) -> None:
    status, out, _ = sslbench(verb, "--help")
    assert status == 0
    assert f"sslbench {verb}" in out.strip().splitlines()[-1]
