"""The table of docs/large-batches.md is what the registered methods say."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ssl_bench import registry
from ssl_bench.settings import parse_settings
from ssl_bench.testing import subjects
from ssl_bench.testing.method_bench import Bench, Subject
from ssl_bench.training.micro_batches import exactness, has_batch_norm
from tests.methods import INSTALLED
from tests.test_architecture import ROOT

ROWS = re.findall(
    r"^\| `([\w-]+)`(?:, `(\w+)=(\w+)`)? \| (mean|cached) \| (yes|no) \| (yes|no) \|$",
    (ROOT / "docs" / "large-batches.md").read_text(),
    re.MULTILINE,
)


def test_every_trained_method_has_a_row() -> None:
    assert {row[0] for row in ROWS if not row[1]} == set(INSTALLED) - {"random"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(filter(None, row[:3])))
def test_a_row_is_what_the_method_says(row: tuple[str, ...]) -> None:
    name, key, value, way, paper, small = row
    settings: dict[str, Any] = {key: value} if key else {}
    bench = Subject(registry.method(name), settings).benches[0]  # on a ViT, which has no batch norm
    defaults = parse_settings(bench.kind.Config, settings, "method", name)
    as_published = Bench(bench.kind, bench.kind.fill(defaults, subjects.situation(bench.network)), bench.network)
    built = bench.build()
    assert exactness(built, 2, 8).forward_passes == {"mean": 1, "cached": 2}[way]
    assert built.mean_over_images == (way == "mean")
    assert [has_batch_norm(built), has_batch_norm(as_published.build())] == [small == "yes", paper == "yes"]
