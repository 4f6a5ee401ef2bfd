"""Evaluations of older schemas in today's form: equal protocols compare equal, and accuracies have intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_bench.measurement import wilson_interval

TEXT_PROTOCOLS_SCHEMA = 3
"""The last schema in which a protocol was one text."""
_SPELLINGS = {"centre": "center", "neighbour": "neighbor", "normalised": "normalized", "standardised": "standardized"}


def in_current_form(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation of schema `TEXT_PROTOCOLS_SCHEMA` or older, its protocols and metrics in the spelling of today, and
    its accuracies with the interval that measurements once did not have."""
    measurements = [
        {
            **one,
            "metric": current_metric(evaluation, one),
            "protocol": respelled(one["protocol"]),
            **_interval(one),
        }
        if isinstance(one, dict) and "protocol" in one
        else one
        for one in evaluation.get("measurements") or ()
    ]
    return {**evaluation, "measurements": measurements}


def current_metric(evaluation: Mapping[str, Any], measurement: Mapping[str, Any]) -> Any:
    """The name that a measurement's metric has today."""
    name = measurement.get("metric")
    return "center_box" if (evaluation.get("evaluator"), name) == ("voc-jaccard", "centre_box") else name


def _interval(measurement: Mapping[str, Any]) -> dict[str, Any]:
    """The key of the interval of an accuracy without one; empty for anything else."""
    value, n = measurement.get("value"), measurement.get("n")
    if measurement.get("interval") or not str(measurement.get("metric")).startswith("top1_"):
        return {}
    if not isinstance(value, float | int) or not 0 <= value <= 100 or not isinstance(n, int) or n < 1:
        return {}
    return {"interval": wilson_interval(round(value * n / 100), n)}


def respelled(protocol: Any) -> Any:
    """A protocol that is a text in the spelling of today; any other as it is."""
    if not isinstance(protocol, str):
        return protocol
    for before, today in _SPELLINGS.items():
        protocol = protocol.replace(before, today)
    return protocol
