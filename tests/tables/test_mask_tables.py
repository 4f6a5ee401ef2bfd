"""The tables voc_jaccard and davis, from records alone, and what `sslbench table` writes when no table is named."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

import pytest

from ssl_bench.cli.main import main
from ssl_bench.records.record import RunRecord, write_record
from ssl_bench.tables.fold import fold
from ssl_bench.tables.loading import load_table
from ssl_bench.tables.render import to_csv, to_markdown
from ssl_bench.tables.table import Table
from tests.example_records import evaluation, evaluations, make_record, measured

VOC = {"data": "voc12-val", "data_fingerprint": "c0de" * 8, "synthetic": False, "image_px": 480}
MASKS = {"data": "shapes-masks", "data_fingerprint": "5eed" * 8, "synthetic": True, "image_px": 64}


def measured_by(evaluator: str, protocol: str, on: dict[str, Any], **values: tuple[float, float]) -> list[Any]:
    """Evaluations of both networks; each metric with its (untrained, trained) values, the first one primary."""
    return [
        evaluation(
            evaluator,
            subject,
            *(
                measured(pair[place], metric=metric, protocol=protocol, primary=number == 0)
                for number, (metric, pair) in enumerate(values.items())
            ),
            **on,
        )
        for place, subject in enumerate(("untrained", "trained"))
    ]


def jaccard(best: tuple[float, float], on: dict[str, Any] = VOC, protocol: str = "attention Jaccard v1") -> list[Any]:
    return measured_by(
        "voc-jaccard", protocol, on, best_head=best, best_single_head=(10.0, 20.0), average_head=(9.0, 15.0),
        mean_map=(8.0, 14.0), whole_image=(18.0, 18.0), center_box=(27.0, 27.0),
    )  # fmt: skip


def table(name: str, *records: RunRecord) -> Table:
    source = load_table(name)
    return fold(source.description, records, source.published)


def lines(made: Table, kind: str = "measured") -> list[dict[str, str]]:
    return [row for row in csv.DictReader(io.StringIO(to_csv(made))) if row["kind"] == kind]


def test_jaccard_beside_the_printed_figures() -> None:
    made = table(
        "voc_jaccard",
        make_record(evaluations=(*evaluations(), *jaccard((19.0, 31.5)))),
        make_record("supervised", evaluations=tuple(jaccard((19.0, 25.0)))),
    )
    dino, supervised = lines(made)
    assert [float(dino[f"{name}_mean"]) for name in ("best_head", "single_head", "whole_image", "center_box")] == [
        31.5, 20.0, 18.0, 27.0,
    ]  # fmt: skip
    assert float(dino["best_head_untrained_mean"]) == 19.0
    assert (dino["method"], dino["published_jaccard_thesis"], dino["published_jaccard_paper"]) == (
        "dino",
        "45.8",
        "45.9",
    )
    assert (supervised["method"], supervised["published_jaccard_thesis"]) == ("supervised", "26.9")
    text = to_markdown(made)
    assert "19.0 → 31.5" in text
    assert text.count("evaluated on voc12-val, fingerprint c0dec0de") == 1  # one note for all columns
    assert "not to be compared with figures on shapes (synthetic)" in text
    printed = {row["method"]: row["published_jaccard_paper"] for row in lines(made, "published") if "8" in row["arch"]}
    assert printed == {"random": "21.8", "supervised": "23.7", "dino": "44.7"}


def test_a_run_without_such_an_evaluation_has_no_row() -> None:
    made = table("voc_jaccard", make_record(), make_record("byol", evaluations=tuple(jaccard((19.0, 31.5)))))
    assert [row["method"] for row in lines(made)] == ["byol"]
    assert not table("voc_jaccard", make_record()).blocks


def test_masks_of_two_sets_stand_on_lines_of_their_own_in_one_order() -> None:
    made = table("voc_jaccard", make_record(evaluations=(*jaccard((19.0, 31.5)), *jaccard((38.0, 41.0), MASKS))))
    found = [(row["best_head_mean"], "shapes-masks (synthetic)" in row["center_box_protocol"]) for row in lines(made)]
    assert found == [("41.0", True), ("31.5", False)]
    text = to_markdown(made)
    assert "38.0 → 41.0 [a]" in text
    assert "19.0 → 31.5 [b]" in text
    assert (
        "[a] best head, best single head, whole image, center box: attention Jaccard v1; evaluated on shapes-m" in text
    )
    assert "[c]" not in text


def test_a_run_of_no_steps_is_the_random_row() -> None:
    record = make_record("random", evaluations=(jaccard((19.5, 0.0))[0],))
    record = record.model_copy(update={"training": record.training.model_copy(update={"steps": 0})})
    (row,) = lines(table("voc_jaccard", record))
    assert (row["best_head_mean"], row["published_jaccard_thesis"]) == ("19.5", "19.8")


def test_davis_beside_the_printed_figures() -> None:
    scores = measured_by(
        "davis", "DAVIS v1", VOC | {"data": "davis2017-val"},
        jf_mean=(30.0, 45.0), j_mean=(28.0, 44.0), f_mean=(32.0, 46.0), copy_first_jf_mean=(25.0, 25.0),
    )  # fmt: skip
    made = table("davis", make_record(arch="deit_s8", evaluations=tuple(scores)), make_record())
    (row,) = lines(made)
    assert [row[f"{name}_mean"] for name in ("jf", "j", "f", "copy_first")] == ["45.0", "44.0", "46.0", "25.0"]
    assert [row[f"published_{name}_mean"] for name in ("jf", "j", "f")] == ["69.9", "66.6", "73.1"]
    for printed in lines(made, "published"):  # J&F is the mean of J and F, up to the rounding of three figures
        jf, j, f = (float(printed[f"published_{name}_mean"]) for name in ("jf", "j", "f"))
        assert jf == pytest.approx((j + f) / 2, abs=0.101)


def test_without_a_name_every_table_with_records_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sslbench(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["sslbench", "table", "--results", str(tmp_path), *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        return capsys.readouterr().out

    assert "no record under" in sslbench()
    write_record(make_record(), tmp_path / "runs" / "one" / "record.json")
    assert "Jaccard" not in sslbench()
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == ["comparison.csv", "comparison.md"]
    both = make_record(seed=1, evaluations=(*evaluations(), *jaccard((19.0, 31.5))))
    write_record(both, tmp_path / "runs" / "two" / "record.json")
    out = sslbench()
    assert out.index("# Methods compared") < out.index("# Jaccard of attention masks")
    assert (tmp_path / "tables" / "voc_jaccard.md").exists()
    assert not (tmp_path / "tables" / "davis.md").exists()
    assert "none of the 2 records" in sslbench("davis")
