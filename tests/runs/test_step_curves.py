"""steps.csv of a run: at its end, after a stop, after resuming, and on screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssl_bench.records.reading import read_record
from ssl_bench.records.steps import read_step_curves
from ssl_bench.training.loop import Stopped
from tests.conftest import Command
from tests.runs.test_during_training import images, recipe, run

__all__ = ["images"]


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(recipe(images), folder)
    return folder


def test_a_stopped_run_has_its_steps_and_a_resumed_one_those_of_the_uninterrupted(
    images: Path, whole: Path, tmp_path: Path
) -> None:
    resolved, cut, record = recipe(images), tmp_path / "cut", read_record(whole / "record.json")
    with pytest.raises(Stopped):
        run(resolved, cut, stop_after=3)
    assert read_step_curves(cut).steps == (1, 2, 3)
    assert run(resolved, cut, resume=True).step_curves == record.step_curves
    assert (cut / "steps.csv").read_bytes() == (whole / "steps.csv").read_bytes()

    assert record.step_curves is not None
    curves = read_step_curves(whole, record.step_curves.sha256)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert curves.steps == tuple(range(1, 9))
    assert curves.epochs == (1, 1, 2, 2, 3, 3, 4, 4)
    for name in ("loss", "teacher_entropy", "kl", "lr", "gradient_norm", "teacher_momentum"):
        assert curves.values[name] == pytest.approx([line[name] for line in lines], rel=1e-7)
    assert curves.values["feature_spread"][0] == pytest.approx(lines[0]["feature_spread"], rel=1e-7)


def test_show_draws_the_curves(sslbench: Command, whole: Path) -> None:
    status, out, _ = sslbench("show", str(whole))
    values = read_step_curves(whole).values["loss"]
    assert status == 0
    line = next(line for line in out.splitlines() if line.startswith("  loss "))
    assert line.endswith(f"{values[0]:.4g} → {values[-1]:.4g}")
    assert "█" in line
    kept = (whole / "steps.csv").rename(whole / "kept.csv")
    status, out, err = sslbench("show", str(whole))
    kept.rename(whole / "steps.csv")
    assert status == 1
    assert "steps.csv is missing" in err
    assert "knn top1_k3" in out
