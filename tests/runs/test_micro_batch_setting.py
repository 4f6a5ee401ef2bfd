"""`machine.micro_batch` on the command line: in the record and on screen, outside of the digest, in tables' notes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssl_bench.records.cost import MicroBatchRecord
from ssl_bench.tables.fold import fold
from ssl_bench.tables.loading import load_table
from ssl_bench.tables.render import to_markdown
from tests.conftest import Command
from tests.end_to_end.test_end_to_end import SMALL
from tests.example_records import make_record
from tests.toy import write_image_folder

REASON = "batch norm sees 4 images of 8"


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    data = write_image_folder(tmp_path / "tints", train=8, test=4, px=16)
    return ["run", "dino", *SMALL, "--data", str(data), "--epochs", "1", "--with", "knn"]


def test_a_run_in_micro_batches_records_whether_it_is_exact(
    sslbench: Command, tmp_path: Path, arguments: list[str]
) -> None:
    more = ("--set", "method.head_batch_norm=true", "--set", "machine.micro_batch=4", "--run-id", "parts")
    status, out, err = sslbench(*arguments, *more)
    assert status == 0, out + err
    record = json.loads((tmp_path / "results" / "runs" / "parts" / "record.json").read_text())
    assert record["training"]["micro_batches"] == [{"images": 4, "steps": 2, "exact": False, "reason": REASON}]
    sections = [part for part in record["recipe"].values() if isinstance(part, dict)]
    assert not any("micro_batch" in {**part, **part.get("settings", {})} for part in sections)
    assert f"of 4 images, approximate: {REASON}" in " ".join(sslbench("show", "parts")[1].split())


def test_a_single_image_is_refused_where_batch_norm_needs_two(
    sslbench: Command, tmp_path: Path, arguments: list[str]
) -> None:
    more = ("--set", "method.head_batch_norm=true", "--set", "machine.micro_batch=1")
    status, out, err = sslbench(*arguments, *more)
    assert status == 2
    words = " ".join((out + err).split())
    assert "micro-batches of a single image out of 8" in words
    assert "--set machine.micro_batch=2" in words


def test_a_table_says_which_gradients_are_approximate() -> None:
    given, exact = make_record("byol"), make_record("simclr")
    assert given.training is not None
    assert exact.training is not None
    part = MicroBatchRecord(images=4, steps=10, exact=False, reason=REASON)
    given = given.model_copy(update={"training": given.training.model_copy(update={"micro_batches": (part,)})})
    other = part.model_copy(update={"exact": True, "reason": ""})
    exact = exact.model_copy(update={"training": exact.training.model_copy(update={"micro_batches": (other,)})})
    text = to_markdown(fold(load_table("comparison").description, [given, exact]))
    assert f"byol on deit_s16: approximate gradients, from micro-batches: {REASON}" in text
    assert "simclr on deit_s16: approximate" not in text
