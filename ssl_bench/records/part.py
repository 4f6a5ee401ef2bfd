"""What all parts of a record share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Amount = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
"""Seconds, rates and sizes: finite, so that one odd record cannot break a table of many."""


class RecordPart(BaseModel):
    """Base of what stands in a record: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
