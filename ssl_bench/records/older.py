"""Protocols and metrics of older schemas in today's words, so that equal protocols compare equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEXT_PROTOCOLS_SCHEMA = 3
"""The last schema in which a protocol was one text."""
_SPELLINGS = {"centre": "center", "neighbour": "neighbor", "normalised": "normalized", "standardised": "standardized"}


def with_current_spelling(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation of schema `TEXT_PROTOCOLS_SCHEMA` or older, its protocols and metrics in the spelling of today."""
    measurements = [
        {**one, "metric": _current_metric(evaluation, one), "protocol": _respelled(one["protocol"])}
        if isinstance(one, dict) and "protocol" in one
        else one
        for one in evaluation.get("measurements") or ()
    ]
    return {**evaluation, "measurements": measurements}


def _current_metric(evaluation: Mapping[str, Any], measurement: Mapping[str, Any]) -> Any:
    name = measurement.get("metric")
    return "center_box" if (evaluation.get("evaluator"), name) == ("voc-jaccard", "centre_box") else name


def _respelled(protocol: Any) -> Any:
    if not isinstance(protocol, str):
        return protocol
    for before, today in _SPELLINGS.items():
        protocol = protocol.replace(before, today)
    return protocol
