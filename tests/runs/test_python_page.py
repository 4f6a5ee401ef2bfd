"""docs/python.md: its code runs as it stands, and does what the page says."""

from __future__ import annotations

import os
import re
from pathlib import Path
from signal import SIGINT
from typing import Any

import numpy as np
import pytest

import ssl_bench
from ssl_bench.errors import UserError
from ssl_bench.runs.functions import WarningsOnly
from tests.conftest import Command
from tests.toy import write_image_folder

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert {name for block in blocks for name in re.findall(r"ssl_bench\.(\w+)\(", block)} == set(ssl_bench.__all__)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    out = capsys.readouterr().out
    assert out.startswith(f"{names['record'].run_id} finished\n"), "nothing but what the page prints"
    runs = sorted(path.name for path in Path("results/runs").iterdir())
    of_features = [name for name in runs if name.startswith("elsewhere-features")]
    assert len(of_features) == 1
    runs.remove(of_features[0])
    assert len(runs) == 2, "the temperature 0.5 is the preset's: that run is reused"
    results, curves = names["results"], names["curves"]
    assert sorted(results.run.unique()) == sorted([*runs, *of_features])
    assert sorted(curves.run.unique()) == runs
    assert sorted(results["method.temperature"].dropna().unique()) == [0.1, 0.5]
    assert set(results["evaluators.knn.temperature"]) == {0.07}
    assert results.protocol.str.contains("exp(s / 0.2)", regex=False).sum() == 2 * 4, "what evaluate added"
    assert set(curves.epoch) == {1, 2}


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run of a second on eight images, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    data = write_image_folder(tmp_path / "tints", train=4, test=2, px=16)
    settings = {"backbone.width": 0.125, "evaluators.knn.neighbors": (1,), "evaluators.knn.reported": 1}
    return {
        "arch": "resnet18", "data": data, "epochs": 2, "batch_size": 4, "with_": "knn",
        "settings": {**settings, "training.precision": "fp32"},
    }  # fmt: skip


def test_the_function_and_the_command_make_the_same_run(options: dict[str, Any], sslbench: Command) -> None:
    record = ssl_bench.run("simclr", **options)
    with pytest.raises(UserError, match="is finished"):
        ssl_bench.run("simclr", **options)
    words = ["--set", "backbone.width=0.125", "--set", "evaluators.knn.neighbors=[1]"]
    words += ["--set", "evaluators.knn.reported=1", "--set", "training.precision=fp32"]
    arguments = ["--arch", "resnet18", "--data", str(options["data"]), "--epochs", "2", "--batch-size", "4"]
    status, _, err = sslbench("run", "simclr", *arguments, *words, "--with", "knn", "--run-id", "typed")
    assert status == 0, err
    assert ssl_bench.run("simclr", **options, run_id="typed", reuse=True).run_id == "typed"
    results = ssl_bench.load_results()
    assert results.groupby("digest").ngroups == 1
    values = [list(rows.value) for _, rows in results.groupby("run")]
    assert values[0] == values[1]
    assert record.command.startswith(f"ssl_bench.run(method='simclr', arch='resnet18', data='{options['data']}', ")
    with pytest.raises(UserError, match="is finished"):
        eval(record.command, {"ssl_bench": ssl_bench})


def test_an_interrupt_saves_and_says_how_to_resume(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ssl_bench.run("simclr", **options, run_id="whole")
    with monkeypatch.context() as patch:
        patch.setattr(WarningsOnly, "step", lambda self, report: report.step == 3 and os.kill(os.getpid(), SIGINT))
        with pytest.raises(KeyboardInterrupt) as stop:
            ssl_bench.run("simclr", **options, run_id="cut")
    assert str(stop.value).startswith("saved at step 3 of 4. Resume with: ssl_bench.run(resume=")
    resumed = eval(str(stop.value).partition("Resume with: ")[2], {"ssl_bench": ssl_bench})
    assert [e.measurements for e in resumed.evaluations] == [e.measurements for e in whole.evaluations]
    assert resumed.training.resumed == 1
    assert capsys.readouterr() == ("", "")


def test_numbers_of_numpy_and_paths_are_taken(options: dict[str, Any], tmp_path: Path) -> None:
    settings = options.pop("settings") | {"method.temperature": np.float32(0.5), "method.crop_px": np.int64(16)}
    record = ssl_bench.run("simclr", **options, settings=settings, seed=np.int64(3), results=tmp_path / "elsewhere")
    assert record.recipe["method"]["settings"]["temperature"] == 0.5
    assert record.seed == 3
    assert "np." not in record.command
    assert list(ssl_bench.load_results(str(tmp_path / "elsewhere")).seed.unique()) == [3]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "simclrr", "arch": "resnet18"}, "Did you mean 'simclr'"),
        ({"method": "simclr", "arch": "resnet18", "settings": {"method.temprature": 1}}, "Did you mean 'method.temp"),
        ({"method": "simclr", "arch": "resnet18", "with_": ["kn"], "batch_size": 4}, "Did you mean 'knn'"),
        ({"method": "simclr", "arch": "resnet18", "data": "nowhere/x"}, "does not exist"),
        ({"method": "simclr", "arch": "resnet18", "resume": "it"}, "leave 'simclr' out"),
        ({"resume": "it"}, "it"),
    ],
)
def test_mistakes(options: dict[str, Any], arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ssl_bench.run(**{"data": options["data"], **arguments})
    with pytest.raises(UserError, match="no run is called 'it'"):
        ssl_bench.evaluate("it")
    assert not Path("results").exists()
