"""The way of a stranger, for real: the package of the docs page, checked, installed with pip, listed, run and tabled.

It is installed into an environment of its own that sees the packages of the one that runs the tests, and changes
nothing in that. Building it takes setuptools from the package index, as `pip install` does anywhere.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.toy import write_image_folder

PAGE = Path(__file__).parents[2] / "docs" / "write-a-method.md"


@dataclass(frozen=True)
class Place:
    """A stranger's folder and Python."""

    folder: Path
    python: Path

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            [str(self.python), *words],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def sslbench(self, *words: str) -> str:
        return self("-m", "ssl_bench.cli.main", *words)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The package sim-siam with the code of the docs page, checked before installing and then installed with pip."""
    folder = tmp_path_factory.mktemp("outside")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    made = Place(folder, folder / "env" / "bin" / "python")
    own = Path(made("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (own / "ours.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in sorted(ours)))

    made.sslbench("new-plugin", "sim-siam")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "sim-siam" / "sim_siam.py").write_text(code)
    assert "0 fail" in made.sslbench("check", "sim-siam/sim_siam.py:SimSiam")
    assert "sim_siam" not in made.sslbench("list", "methods")
    pip = [sys.executable, "-m", "pip", "--python", str(made.python), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--editable", "sim-siam"], cwd=folder, check=True)
    write_image_folder(folder / "tints", train=20, test=10, px=16)
    return made


def test_list_and_check_know_it(place: Place) -> None:
    (line,) = [line for line in place.sslbench("list", "methods").splitlines() if "sim_siam" in line]
    for words in ("sim-siam 0.1.0", "arXiv 2011.10566", "a network predicts its own output"):
        assert words in line
    assert "every plugin loads" in place.sslbench("list", "methods", "--check")
    assert "(method SimSiam, sim-siam 0.1.0)" in place.sslbench("check", "sim-siam")


def test_run_and_table_know_it_and_the_record_names_its_package(place: Place) -> None:
    settings = ("method.dim=16", "method.predictor_dim=8", "backbone.width=0.125", "training.precision=fp32")
    sets = [word for value in settings for word in ("--set", value)]
    place.sslbench(
        "run", "sim_siam", "--arch", "resnet18", "--data", "tints", "--epochs", "1", "--batch-size", "8",
        "--with", "knn", *sets,
    )  # fmt: skip
    (run,) = (place.folder / "results" / "runs").iterdir()
    record = json.loads((run / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["method"] == "sim_siam"
    assert record["method_plugin"] == "sim-siam 0.1.0"
    assert record["training"]["steps"] == 5
    assert "sim_siam" in place.sslbench("table")


def test_the_environment_that_runs_the_tests_is_left_as_it_was(place: Place) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "ssl_bench.cli.main", "list", "methods"], capture_output=True, text=True, check=True
    )
    assert "sim_siam" not in listed.stdout
