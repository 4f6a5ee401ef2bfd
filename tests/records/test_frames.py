"""Results as data frames: every measurement and setting is in it, typed; what is damaged is a warning."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ssl_bench
from ssl_bench.errors import UserError
from ssl_bench.measurement import accuracy
from ssl_bench.records.curves import Curves, summarize_curves, write_curves
from ssl_bench.records.frames import typed
from ssl_bench.records.record import RunRecord, write_record
from tests.example_records import evaluation, make_record, measured

COMMITTED = Path(__file__).parents[2] / "results"


def write(results: Path, *records: RunRecord) -> Path:
    for record in records:
        write_record(record, results / "runs" / record.run_id / "record.json")
    return results


def test_one_row_a_measurement_with_its_run_and_settings(tmp_path: Path) -> None:
    probe = accuracy("top1_last", 30, 40, protocol="linear", primary=True, details="rate 0.1")
    later = evaluation("linear-probe", "trained", probe, network="teacher", step=1500, data="birds", synthetic=False)
    dino = make_record(seed=1, knn=(30.0, 40.0), linear=None, settings={"global_scale": [0.4, 1.0], "blur": True})
    byol = make_record("byol", "resnet18", knn=(20.0, 25.0), linear=None, status="collapsed", status_reason="constant")
    write(tmp_path, dino, byol)
    write_record(later, tmp_path / "runs" / dino.run_id / "evaluations" / "probe.json")
    found = ssl_bench.load_results(tmp_path)
    assert list(zip(found.method, found.subject, found.value, strict=True)) == [
        ("byol", "untrained", 20.0), ("byol", "trained", 25.0),
        ("dino", "untrained", 30.0), ("dino", "trained", 40.0), ("dino", "trained", 75.0),
    ]  # fmt: skip
    row = found.iloc[4]
    expected = {
        "run": dino.run_id, "arch": "deit_s16", "data": "shapes", "evaluator": "linear-probe", "metric": "top1_last",
        "unit": "%", "n": 40, "interval_low": probe.interval[0], "interval_high": probe.interval[1], "primary": True,
        "network": "teacher", "step": 1500, "eval_data": "birds", "eval_synthetic": False, "synthetic": True,
        "protocol": "linear", "details": "rate 0.1", "seed": 1, "digest": dino.digest, "status": "finished",
        "method.local_views": 8, "method.global_scale": (0.4, 1.0), "method.blur": True, "training.epochs": 12,
        "optimizer.lr": 5e-4, "evaluators.knn.k": (20,), "log.loss": 5.31, "version.torch": "2.14.1",
        "train_seconds": 540.0, "machine.device": "cpu", "parameters": 21_665_664, "tokens": 5,
        "folder": str(tmp_path / "runs" / dino.run_id), "started": pd.Timestamp("2026-01-01T00:00:00Z"),
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert found["method.global_scale"].map(lambda value: value is None).tolist() == [True, True, False, False, False]
    assert math.isnan(found.interval_low[0])
    assert found.status_reason[0] == "constant"
    assert found.network.isna().tolist() == [True] * 4 + [False]


def test_types_are_the_same_whatever_is_missing(tmp_path: Path) -> None:
    full = make_record(run_id="a", settings={"blur": True})
    pretrained = {"tokens": None, "inference_images_per_second": None, "pretrained": "timm's vit"}
    bare = make_record(run_id="b", backbone=pretrained, settings={"out_dim": None})
    one, two = (ssl_bench.load_results(write(tmp_path / str(n), record)) for n, record in enumerate((full, bare)))
    both = ssl_bench.load_results(write(tmp_path / "both", full, bare))
    none = ssl_bench.load_results(_empty(tmp_path / "none"))
    fixed = list(none.columns)
    for frame in (one, two, both):
        assert list(frame.columns[: len(FIRST_COLUMNS)]) == FIRST_COLUMNS
        assert frame[fixed].dtypes.to_dict() == none.dtypes.to_dict()
    assert both["method.out_dim"].dtype == "Int64"
    assert both["method.blur"].dtype == "boolean"
    assert both["optimizer.lr"].dtype == "float64"
    assert both["optimizer.name"].dtype == "string"
    assert both.subject.unique().tolist() == ["untrained", "trained", "pretrained"]
    assert both.started.dtype == "datetime64[us, UTC]"


FIRST_COLUMNS = ["run", "method", "arch", "data", "evaluator", "metric", "value", "unit", "n", "interval_low"]


def _empty(results: Path) -> Path:
    (results / "runs").mkdir(parents=True)
    return results


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([True, None], "boolean", [True, pd.NA]),
        ([1, None, 3], "Int64", [1, pd.NA, 3]),
        ([1, 0.5, None], "float64", [1.0, 0.5, np.nan]),
        (["a", None], "string", ["a", pd.NA]),
        ([None, None], "object", [None, None]),
        ([True, 1], "object", [True, 1]),
        ([[1, [2, 3]], "auto"], "object", [(1, (2, 3)), "auto"]),
    ],
)
def test_a_column_has_the_narrowest_type(values: list[object], dtype: str, expected: list[object]) -> None:
    column = typed(values)
    assert column.dtype == dtype
    for one, other in zip(column, expected, strict=True):
        assert one is other or one == other or (one != one and other != other)
    assert column.nunique() > 0 or dtype == "object", "its values can be counted and grouped"


def test_committed_records_are_all_there() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ssl_bench.load_results(COMMITTED)
    files = [*COMMITTED.glob("runs/*/record.json"), *COMMITTED.glob("runs/*/evaluations/*.json")]
    contents = [json.loads(path.read_text()) for path in files]
    evaluations = [e for content in contents for e in content.get("evaluations", [content])]
    assert len(found) == sum(len(e["measurements"]) for e in evaluations)
    assert found.value.sum() == pytest.approx(sum(m["value"] for e in evaluations for m in e["measurements"]))
    recorded = {content["run_id"]: content["digest"] for content in contents if "run_id" in content}
    assert dict(zip(found.run, found.digest, strict=True)) == recorded


def test_what_is_damaged_is_left_out_with_a_warning(tmp_path: Path) -> None:
    good, cut = make_record(run_id="good"), make_record(run_id="cut")
    write(tmp_path, good, cut)
    file = tmp_path / "runs" / "cut" / "record.json"
    file.write_text(file.read_text()[:-50])
    with pytest.warns(UserWarning, match="left out: .*cut/record.json is damaged") as caught:
        found = ssl_bench.load_results(tmp_path)
    assert found.run.unique().tolist() == ["good"]
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nowhere", "is not there"),
        ("results/runs", "Did you mean 'results'"),
        ("results/runs/good", "Did you mean 'results'"),
        ("results/runs/good/record.json", "is a file"),
        (".", "holds no runs/"),
    ],
)
def test_a_folder_without_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("results"), make_record(run_id="good"))
    with pytest.raises(UserError, match=words):
        ssl_bench.load_results(given)


def test_curves(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "curved"
    folder.mkdir(parents=True)
    curves = Curves()
    for epoch in (1, 2):
        points = [
            evaluation("knn", "trained", measured(10.0 * epoch + shift), network=network, step=5 * epoch)
            for shift, network in enumerate(("teacher", "student"))
        ]
        curves = curves.with_evaluations(5 * epoch, epoch, points)
    write_curves(folder, curves)
    write(tmp_path, make_record(run_id="curved", curves=summarize_curves(folder)), make_record(run_id="plain"))
    found = ssl_bench.load_curves(tmp_path)
    columns = ["run", "network", "epoch", "step", "value", "primary", "n"]
    assert found[columns].values.tolist() == [
        ["curved", "teacher", 1, 5, 10.0, True, 1000], ["curved", "teacher", 2, 10, 20.0, True, 1000],
        ["curved", "student", 1, 5, 11.0, True, 1000], ["curved", "student", 2, 10, 21.0, True, 1000],
    ]  # fmt: skip
    assert found["method.local_views"].tolist() == [8] * 4
    (folder / "curves.json").write_text("{}")
    with pytest.warns(UserWarning, match="curves.json is damaged") as caught:
        assert ssl_bench.load_curves(tmp_path).empty
    assert caught[0].filename == __file__


def test_importing_the_package_and_loading_results_need_no_torch() -> None:
    code = (
        "import sys, ssl_bench; dir(ssl_bench)\n"
        "assert not {'pandas', 'torch'} & sys.modules.keys()\n"
        f"ssl_bench.load_results({os.fspath(COMMITTED)!r})\n"
        "assert not {'torch', 'timm', 'ssl_bench_plugins'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_the_package() -> None:
    assert set(ssl_bench.__all__) <= set(dir(ssl_bench))
    assert all(callable(getattr(ssl_bench, name)) for name in ssl_bench.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'load'"):
        _ = ssl_bench.load
