"""Files inside the page: addresses that hold their content."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass

LARGEST_PLAIN = 100_000
"""Bytes of a CSV file; a larger one is compressed."""


@dataclass(frozen=True)
class Download:
    """A file that a reader can save."""

    name: str
    address: str


def csv_download(name: str, text: str) -> Download:
    """NAME.csv, or NAME.csv.gz where it is large."""
    content = text.encode()
    if len(content) <= LARGEST_PLAIN:
        return Download(f"{name}.csv", data_uri("text/csv;charset=utf-8", content))
    return Download(f"{name}.csv.gz", data_uri("application/gzip", gzip.compress(content, mtime=0)))


def data_uri(kind: str, content: bytes) -> str:
    """An address that needs no network, e.g. data:text/csv;base64,..."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
