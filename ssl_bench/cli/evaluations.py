"""Evaluations on screen: one line a measurement, and where the pictures are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_bench.cli.result import interval_text

if TYPE_CHECKING:
    from ssl_bench.records.record import EvaluationRecord


def print_evaluations(records: Sequence[EvaluationRecord], folder: Path) -> None:
    """One line a measurement, and the pictures."""
    width = max((len(one.metric) for record in records for one in record.measurements), default=0)
    named = max((len(record.evaluator) for record in records), default=0)
    for record in records:
        for one in record.measurements:
            digits = 2 if one.unit == "%" else 3
            ends = f"({words}) " if (words := interval_text(one)) else ""
            print(
                f"  {record.evaluator:{named}} {record.subject:10} {one.metric:{width}} {one.value:8.{digits}f} "
                f"{one.unit_text}  {ends}n {one.n:,}, {record.data}"
            )
        for picture in record.pictures:
            print(f"  picture {folder / picture}")
