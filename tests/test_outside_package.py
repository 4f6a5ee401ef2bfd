"""A package outside of the tree, found by its metadata: `list`, `check`, `run` and `table` know it, the core unchanged.

Installing with pip takes too long for the suite, so the metadata that pip would write are written here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ssl_bench.cli.new_plugin import write_package
from tests.toy import write_image_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and site/ with the method twin_views as pip would lay it."""
    place = tmp_path_factory.mktemp("outside")
    package, module, _ = write_package("twin-views", "method", place / "source")
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = place / "site" / "twin_views-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
            for group, entries in project["entry-points"].items()
        )
    )
    (place / "site" / f"{module}.py").write_text((package / f"{module}.py").read_text())
    write_image_folder(place / "tints", train=20, test=10, px=16)
    return place


def sslbench(place: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ssl_bench.cli.main", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place / "site"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_list_and_check_know_it(place: Path) -> None:
    listed = sslbench(place, "list", "methods")
    (line,) = [line for line in listed.splitlines() if "twin_views" in line]
    assert "twin-views 0.1.0" in line
    assert "arXiv" in line
    assert "a network predicts its own output" in line
    assert "0 fail" in sslbench(place, "check", "twin-views")


def test_run_and_table_know_it_and_the_record_names_its_package(place: Path) -> None:
    settings = ("method.dim=16", "method.predictor_dim=8", "backbone.width=0.125", "training.precision=fp32")
    sets = [word for value in settings for word in ("--set", value)]
    sslbench(
        place, "run", "twin_views", "--arch", "resnet18", "--data", "tints", "--epochs", "1", "--batch-size", "8",
        "--with", "knn", *sets,
    )  # fmt: skip
    (run,) = (place / "results" / "runs").iterdir()
    record = json.loads((run / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["method"] == "twin_views"
    assert record["method_plugin"] == "twin-views 0.1.0"
    assert record["training"]["steps"] == 5
    assert "twin_views" in sslbench(place, "table")
