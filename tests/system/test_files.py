"""The cache folder, also for a user without a home."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_bench.datasets.voc import open_voc
from ssl_bench.errors import UserError
from ssl_bench.runs.folder import find_run
from ssl_bench.system import files as cache
from ssl_bench.system.files import cache_folder
from ssl_bench.tables.loading import load_table


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME and no entry in the list of users."""

    def no_entry(user: object) -> None:
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME", "SSLBENCH_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    monkeypatch.setattr(pwd, "getpwnam", no_entry)


def test_the_order_of_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SSLBENCH_CACHE", raising=False)
    assert cache_folder() == Path("/h/.cache/sslbench")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/sslbench")
    monkeypatch.setenv("SSLBENCH_CACHE", "/s")
    assert cache_folder() == Path("/s")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_cache_is_temporary_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    cache._tell.cache_clear()
    folders = {cache_folder(), cache_folder()}
    (folder,) = folders
    assert folder.is_absolute()
    assert str(os.getuid()) in folder.name
    said = capsys.readouterr().err
    assert said.count("no home folder") == said.count("SSLBENCH_CACHE=FOLDER") == 1


@pytest.mark.usefixtures("homeless")
def test_a_tilde_without_a_home_is_a_path_that_is_missing(tmp_path: Path) -> None:
    for read in (lambda: open_voc(Path("~/VOC")), lambda: find_run("~/run", tmp_path), lambda: load_table("~/t.toml")):
        with pytest.raises(UserError):
            read()


def test_a_run_starts_without_a_home(tmp_path: Path) -> None:
    code = (
        "import pwd\n"
        "def no_entry(user): raise KeyError(user)\n"
        "pwd.getpwuid = pwd.getpwnam = no_entry\n"
        "from ssl_bench.cli.main import main\n"
        "main()"
    )
    small = ["--set", "data.train_images=16", "--set", "data.test_images=10", "--set", "data.image_px=16"]
    network = ["--arch", "resnet18", "--set", "backbone.width=0.125", "--batch-size", "8", "--epochs", "1"]
    knn = ["--with", "knn", "--set", "evaluators.knn.neighbors=[1]", "--set", "evaluators.knn.reported=1"]
    places = {"TMPDIR": str(tmp_path), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "simclr", *network, *small, *knn, "--results", str(tmp_path / "results")],
        env=places, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SSLBENCH_CACHE=FOLDER" in done.stderr
    assert list((tmp_path / f"sslbench-cache-{os.getuid()}").glob("shapes-*.drawn"))
