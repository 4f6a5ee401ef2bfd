"""Records: written once and whole or not at all; a damaged or newer one spoils nothing but itself."""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ssl_bench.errors import UserError
from ssl_bench.records.reading import read_all, read_record
from ssl_bench.records.record import SCHEMA_VERSION, write_record
from ssl_bench.system.files import write_atomically
from tests.example_records import evaluation, make_record, measured


def no_space(*arguments: Any, **others: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def no_permission(*arguments: Any, **others: Any) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_record_comes_back_equal(tmp_path: Path) -> None:
    record = make_record(knn=(1 / 3, 2 / 3))
    write_record(record, tmp_path / "runs" / "a" / "record.json")
    assert read_record(tmp_path / "runs" / "a" / "record.json") == record


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_record(make_record(seed=0), path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="never overwritten"):
        write_record(make_record(seed=1), path)
    assert path.read_bytes() == before
    assert files(tmp_path) == ["record.json"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_content_and_no_rest(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.md"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, call, no_space)
    with pytest.raises(UserError, match=r"cannot write .*table\.md: No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == ["table.md"]


def test_no_permission_names_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "mkstemp", no_permission)
    with pytest.raises(UserError, match=r"cannot write .*record\.json: Permission denied.*--results"):
        write_record(make_record(), tmp_path / "record.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        write_atomically(tmp_path / "record.json", b"")


def test_a_stop_while_writing_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "record.json", b"new")
    assert files(tmp_path) == []


def test_what_is_written_is_readable_by_others(tmp_path: Path) -> None:
    write_atomically(tmp_path / "record.json", b"{}")
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == 0o644


def test_a_run_that_failed_on_a_loss_that_is_not_finite_can_be_read(tmp_path: Path) -> None:
    made = make_record(status="failed")
    training = made.training.model_copy(update={"final_logs": {"loss": math.nan, "norm": math.inf}})
    write_record(made.model_copy(update={"training": training}), tmp_path / "record.json")
    logs = read_record(tmp_path / "record.json").training.final_logs
    assert math.isnan(logs["loss"])
    assert logs["norm"] == math.inf


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="runs"):
        write_record(make_record(), tmp_path / "runs" / "a" / "record.json")


def put(results: Path, name: str, content: bytes) -> None:
    folder = results / "runs" / name
    folder.mkdir(parents=True)
    (folder / "record.json").write_bytes(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged"),
        (b'{"run_id": "a", "sta', "damaged"),
        (b"\xff\xfe\x00", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"[1, 2]", "damaged"),
        (b'{"schema_version": 1}', "damaged"),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1, "run": "?"}).encode(), "newer sslbench"),
    ],
    ids=["empty", "cut", "not text", "nested", "a list", "incomplete", "newer"],
)
def test_an_unreadable_record_is_one_line_and_the_others_are_read(tmp_path: Path, content: bytes, said: str) -> None:
    write_record(make_record(), tmp_path / "runs" / "good" / "record.json")
    put(tmp_path, "bad", content)
    records, problems = read_all(tmp_path)
    assert [path.parent.name for path, _ in records] == ["good"]
    assert len(problems) == 1
    assert str(tmp_path / "runs" / "bad" / "record.json") in problems[0]
    assert said in problems[0]
    assert "\n" not in problems[0]


def test_later_evaluations_are_joined_and_a_damaged_one_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    write_record(make_record(), folder / "record.json")
    write_record(evaluation("voc-jaccard", "trained", measured(45.8)), folder / "evaluations" / "voc.json")
    (folder / "evaluations" / "cut.json").write_text('{"eval')
    records, problems = read_all(tmp_path)
    assert [e.evaluator for e in records[0][1].evaluations] == ["knn"] * 2 + ["linear-probe"] * 2 + ["voc-jaccard"]
    assert len(problems) == 1
    assert "cut.json" in problems[0]


def test_no_results_folder_is_no_record(tmp_path: Path) -> None:
    assert read_all(tmp_path / "nothing") == ([], [])
