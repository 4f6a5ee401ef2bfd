"""`sslbench throughput`: a record of the speed alone, what a busy machine gives, and where it is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ssl_bench.evaluation import speed
from ssl_bench.evaluation.speed import Speed
from ssl_bench.records.reading import read_record
from ssl_bench.tables.description import TableDescription
from ssl_bench.tables.fold import fold
from ssl_bench.tables.render import to_markdown
from tests.conftest import Command
from tests.evaluation.test_speed import CPU
from tests.toy import ToyBackbone

SMALL = ("--arch", "resnet18", "--set", "backbone.width=0.125", "--image-px", "16", "--batch", "4", "--wait", "0")
QUIET, BUSY = Speed(100.0, 0.01, 0.98, ""), Speed(None, 0.4, 0.5, "left out, the machine was busy: too much")


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> list[Speed]:
    """What is measured next, in place of a real measurement."""
    given: list[Speed] = []

    def measured(network: Any, image_px: int, device: Any, batch: int) -> Speed:
        return replace(given.pop(0), batch=batch)

    monkeypatch.setattr(speed, "measure_speed", measured)
    monkeypatch.setattr(speed, "PAUSE_SECONDS", 0.0)
    return given


def record_in(results: Path) -> Any:
    (path,) = results.glob("runs/*/record.json")
    return read_record(path)


def test_a_record_holds_size_speed_and_evidence_and_is_read_the_next_time(
    sslbench: Command, speeds: list[Speed], tmp_path: Path
) -> None:
    speeds += [QUIET]
    status, out, err = sslbench("throughput", *SMALL)
    assert status == 0, err
    record = record_in(tmp_path / "results")
    assert (record.method, record.status, record.evaluations) == ("random", "finished", ())
    network = record.backbone
    assert (network.name, network.inference_images_per_second, network.inference_batch) == ("resnet18", 100.0, 4)
    assert (network.inference_spread, network.inference_cpu_share, network.inference_note) == (0.01, 0.98, "")
    assert record.data.image_px == 16
    assert "| resnet18 |" in out
    assert "| 100.0 |" in out.replace("  ", " ").replace("  ", " ")
    assert sslbench("throughput", *SMALL)[0] == 0, "nothing is left to measure: the record is read"
    speeds += [Speed(120.0, 0.01, 0.98, "")]
    assert sslbench("throughput", *SMALL, "--again")[0] == 0
    assert record_in(tmp_path / "results").backbone.inference_images_per_second == 120.0


def test_a_busy_machine_is_waited_for_then_said_and_tried_again_the_next_time(
    sslbench: Command, speeds: list[Speed], tmp_path: Path
) -> None:
    speeds += [BUSY]
    status, out, _ = sslbench("throughput", *SMALL, "--json")
    assert status == 1
    (network,) = json.loads(out)["networks"]
    assert (network["inference_images_per_second"], network["inference_note"]) == (None, BUSY.note)
    speeds += [BUSY, BUSY, QUIET]
    status, _, err = sslbench("throughput", *SMALL[:-1], "30")
    assert status == 0
    assert err.count("too much; trying again") == 2
    assert record_in(tmp_path / "results").backbone.inference_images_per_second == 100.0
    speeds += [BUSY]
    assert sslbench("throughput", *SMALL, "--again")[0] == 0
    assert record_in(tmp_path / "results").backbone.inference_images_per_second == 100.0, "a worse one replaces none"


def test_waiting_ends(speeds: list[Speed]) -> None:
    speeds += [BUSY] * 100_000
    found = speed.patient_speed(ToyBackbone(), 8, CPU, batch=2, wait_seconds=0.05)
    assert found.note == BUSY.note
    assert 1 < 100_000 - len(speeds) < 100_000


def test_tables_of_networks_show_it_and_comparisons_do_not(
    sslbench: Command, speeds: list[Speed], tmp_path: Path
) -> None:
    speeds += [QUIET]
    sslbench("throughput", *SMALL)
    record = record_in(tmp_path / "results")
    values = {"id": "speed", "title": "Speed", "row": [{"id": "arch", "from": "backbone.name"}]}
    rate = {"id": "rate", "title": "im/s", "from": "backbone.inference_images_per_second", "decimals": 0}
    knn = {"id": "knn", "title": "k-NN", "from": "measurement:knn.primary:trained"}
    assert "| 100 |" in to_markdown(
        fold(TableDescription.model_validate(values | {"column": [rate]}), [record])
    ).replace("  ", " ")
    assert fold(TableDescription.model_validate(values | {"column": [rate, knn]}), [record]).blocks == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--arch", "resnet19"), "Did you mean 'resnet18'"),
        (("--arch", "deit_s5", "--image-px", "224"), "220"),
        (("--arch", "resnet18", "--set", "training.epochs=3"), "give backbone.* or machine.*"),
        (("--arch", "resnet18", "--batch", "0"), "greater than or equal to 1"),
    ],
)
def test_mistakes_are_one_message_and_nothing_is_written(
    words: tuple[str, ...], message: str, sslbench: Command, tmp_path: Path
) -> None:
    status, _, err = sslbench("throughput", *words)
    assert status == 2
    assert message in err
    assert not list(tmp_path.glob("results/runs/*/record.json"))
