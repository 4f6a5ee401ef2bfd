"""What each test item scored: what every evaluator gives, the file beside the record, and who reads it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssl_bench
from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.measurement import Measurement, Outcomes, Protocol, accuracy_of
from ssl_bench.records.bootstrap import mean_interval
from ssl_bench.records.outcomes import OutcomesOfRuns, read_outcomes, write_outcomes
from ssl_bench.records.reading import read_record
from ssl_bench.records.record import RunRecord
from ssl_bench.records.state_file import DamagedFile
from ssl_bench.testing.evaluators import Subject
from tests.conftest import Command
from tests.davis_files import moving_square, write_davis
from tests.toy import write_image_folder

NOT_A_MEAN = {("kmeans", "nmi"), ("kmeans", "ari"), ("logistic-regression", "mean_class_top1")}
"""Measured over the whole test set at once, or not with every item alike."""
P = Protocol(text="p")


@pytest.mark.parametrize("name", sorted(set(registry.names("evaluator")) - {"label-free"}))
def test_every_evaluator_gives_the_outcomes_of_what_is_a_mean(name: str, tmp_path: Path) -> None:
    """That they average to the value is checked wherever a measurement is made."""
    settings: dict[str, dict[str, Any]] = {
        "davis": {
            "path": str(write_davis(tmp_path, {one: moving_square(4) for one in ("ants", "bees")})),
            "videos": 0, "short_side_px": 64,
        },
        "kmeans": {"starts": 1},
        "linear-probe": {"learning_rates": [0.1], "min_steps": 1, "epochs": 2},
        "voc-jaccard": {"images": 3, "pictures": 0},
    }  # fmt: skip
    subject = Subject(registry.evaluator(name), settings.get(name, {}))
    found = subject.measure(subject.network())
    assert {one.metric for one in found if one.outcomes is None} == {m for other, m in NOT_A_MEAN if other == name}
    if name == "davis":  # objects of one clip are not independent items
        assert [one.outcomes.clusters.tolist() for one in found] == [[0, 1]] * len(found)


def test_a_file_holds_them_bit_for_bit_and_is_small(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    right = accuracy_of("top1", random.random(2000) < 0.4, protocol=P, primary=True)
    scores = Outcomes.of(random.random(61) * 100, np.arange(61) // 3)
    mean = Measurement(
        metric="jf", value=scores.in_unit.mean(), unit="%", higher_is_better=True, n=61, protocol=P, outcomes=scores
    )
    plain = Measurement(metric="nmi", value=3.0, unit="%", higher_is_better=True, n=2000, protocol=P)
    written = write_outcomes(tmp_path, "evaluations/it-trained", [right, mean, plain])
    assert written is not None
    assert written.metrics == ("top1", "jf")
    assert hashlib.sha256((tmp_path / written.file).read_bytes()).hexdigest() == written.sha256
    found = read_outcomes(tmp_path, written)
    assert np.array_equal(found["top1"].values, right.outcomes.values)
    assert found["top1"].values.dtype == np.bool_
    assert np.array_equal(found["jf"].values, scores.values)
    assert np.array_equal(found["jf"].clusters, scores.clusters)
    alone = write_outcomes(tmp_path, "alone", [right])
    assert alone is not None
    assert (tmp_path / alone.file).stat().st_size < 400, "2,000 bits are 250 bytes"
    assert write_outcomes(tmp_path, "none", [plain]) is None
    assert write_outcomes(tmp_path, "again", [right, mean]).sha256 == written.sha256, "the same bytes every time"


def test_a_file_that_changed_is_named_and_a_missing_one_is_not_needed(tmp_path: Path) -> None:
    written = write_outcomes(tmp_path, "x", [accuracy_of("top1", [True, False], protocol=P)])
    assert written is not None
    path = tmp_path / written.file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"x-outcomes\.safetensors is not the file that the record names"):
        read_outcomes(tmp_path, written)
    path.unlink()
    with pytest.raises(UserError, match="cannot read"):
        read_outcomes(tmp_path, written)


def test_outcomes_that_the_value_is_not_the_mean_of_are_refused() -> None:
    with pytest.raises(ValueError, match="mean 50: give the outcomes"):
        Measurement(metric="m", value=60.0, unit="%", higher_is_better=True, n=2, protocol=P,
                    outcomes=Outcomes.of([True, False]))  # fmt: skip
    with pytest.raises(ValueError, match="one value for each test item"):
        Outcomes.of([[True, False]])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RunRecord]]:
    here = tmp_path_factory.mktemp("runs")
    data = write_image_folder(here / "birds", train=6, test=10)
    records = [
        ssl_bench.run(
            "simclr", "resnet18", data=data, epochs=1, batch_size=6, with_="knn", results=here / "results",
            run_id=f"r{seed}", seed=seed, eval_every=1,
            settings={"backbone.width": 0.125, "data.image_px": 16, "training.precision": "fp32"},
        )
        for seed in (0, 1)
    ]  # fmt: skip
    return here / "results", records


def test_a_run_keeps_them_beside_its_record(runs: tuple[Path, list[RunRecord]]) -> None:
    results, _ = runs
    folder = results / "runs/r0"
    record = read_record(folder / "record.json")
    for evaluation in record.evaluations:
        assert evaluation.outcomes is not None
        found = read_outcomes(folder, evaluation.outcomes)
        for one in evaluation.measurements:
            assert found[one.metric].in_unit.mean() == pytest.approx(one.value)
    kept = {evaluation.outcomes.file for evaluation in record.evaluations}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*-outcomes.safetensors")} == kept, "none an epoch"
    assert "outcomes" not in record.evaluations[0].measurements[0].model_dump()


def test_two_runs_are_compared_item_by_item(runs: tuple[Path, list[RunRecord]], sslbench: Command) -> None:
    results, records = runs
    status, out, err = sslbench("diff", "r0", "r1", "--json", "--results", results)
    assert (status, err) == (0, "")
    trained = next(one for one in json.loads(out)["numbers"] if one["subject"] == "trained")
    source = OutcomesOfRuns({record.run_id: results / "runs" / record.run_id for record in records})
    metric = trained["metric"]
    one, other = (
        source(record, next(e for e in record.evaluations if e.subject == "trained"), metric) for record in records
    )
    assert trained["paired"] is True
    change = Outcomes.of(other.in_unit - one.in_unit)
    assert tuple(trained["interval"]) == pytest.approx(mean_interval([change]))
    assert "paired" in sslbench("diff", "r0", "r1", "--results", results)[1]
    damaged = results / "runs/r1" / records[1].evaluations[0].outcomes.file
    damaged.write_bytes(damaged.read_bytes() + b"x")
    status, out, err = sslbench("diff", "r0", "r1", "--json", "--results", results)
    assert status == 0
    assert f"{damaged} is not the file that the record names" in err
    assert [one["paired"] for one in json.loads(out)["numbers"]] == [False, True]
