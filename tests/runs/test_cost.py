"""What training cost, and whether the machine was quiet: two clocks, the share of waiting, and what tables take."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ssl_bench.runs.describe import describe_training
from ssl_bench.system import cpu_time
from ssl_bench.system.cpu_time import Spent, clocks
from ssl_bench.tables.description import TableDescription
from ssl_bench.tables.fold import fold
from ssl_bench.tables.render import to_markdown
from ssl_bench.training.state import TrainingState
from tests.example_records import make_record

PLAN: Any = SimpleNamespace(steps_per_epoch=10, batch_size=4, device=torch.device("cpu"))


def training(waited: float | None) -> Any:
    state = TrainingState(step=20, seconds=100.0, cpu_seconds=150.0, waited_seconds=waited)
    return describe_training(state, PLAN, nn.Module())


def test_a_quiet_machine_gives_a_time_that_counts() -> None:
    found = training(2.0)
    assert (found.seconds, found.undisturbed_seconds, found.timing_note) == (100.0, 100.0, "")
    assert (found.cpu_seconds, found.waited_share) == (150.0, 0.02)


def test_a_busy_machine_gives_none_and_says_why() -> None:
    found = training(30.0)
    assert (found.seconds, found.undisturbed_seconds, found.waited_share) == (100.0, None, 0.3)
    assert found.timing_note == "left out, the machine was busy: 30% of the time another process had the core"


def test_a_system_that_does_not_tell_gives_none() -> None:
    assert training(None).undisturbed_seconds is None
    assert "does not tell" in training(None).timing_note


def test_clocks_only_grow_and_add_up() -> None:
    first = clocks()
    sum(range(200_000))
    second = clocks()
    spent = second - first
    assert spent.wall > 0
    assert 0 < spent.cpu < 10
    assert spent.waited is None or spent.waited >= 0
    assert Spent(1.0, 2.0, 0.5) + Spent(1.0, 1.0, 0.25) - Spent(0.5, 0.0, 0.0) == Spent(1.5, 3.0, 0.75)
    assert (Spent(1.0, 2.0, None) + Spent(1.0, 1.0, 0.25)).waited is None


@pytest.mark.parametrize("content", [None, "", "12", "a b c"])
def test_where_linux_does_not_count_waiting_it_is_unknown(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "schedstat"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(cpu_time, "SCHEDSTAT", str(path))
    assert clocks().waited is None
    path.write_text("5 2500000000 7\n")
    assert clocks().waited == 2.5


def test_a_table_leaves_a_disturbed_time_out_and_says_why() -> None:
    description = TableDescription.model_validate(
        {
            "id": "cost", "title": "Cost", "row": [{"id": "method", "from": "method"}],
            "column": [{"id": "time", "title": "time", "unit": "s", "from": "training.undisturbed_seconds",
                        "why_empty": "training.timing_note", "decimals": 0}],
        }
    )  # fmt: skip
    records = [
        make_record(method, run_id=method).model_copy(update={"training": training(waited)})
        for method, waited in (("dino", 1.0), ("byol", 40.0))
    ]
    text = to_markdown(fold(description, records))
    assert "| byol   |     1 |        |" in text
    assert "| dino   |     1 |    100 |" in text
    assert "- time of byol: left out, the machine was busy: 40% of the time another process had the core\n" in text
    again = [
        record.model_copy(update={"run_id": f"{record.run_id}-{seed}", "seed": seed})
        for record in records[1:]
        for seed in (1, 2)
    ]
    text = to_markdown(fold(description, [*records, *again]))
    assert "- time of 3 runs: left out, the machine was busy; their records say more\n" in text, "not a line for each"
