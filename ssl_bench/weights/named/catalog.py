"""The short names of published weights, e.g. `dino:deit_s16`: addresses, checksums and architectures, as data."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ssl_bench.errors import UserError, did_you_mean

CATALOG = Path(__file__).with_name("catalog.toml")


class Published(BaseModel):
    """One row of the catalog; `catalog.toml` says what each field means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    method: str
    arch: str
    url: str
    source: str
    settings: dict[str, Any] = {}
    file: str = ""
    sha256: str = ""
    md5: str = ""
    evaluated: str = ""
    key: str | None = None
    access: str = ""

    @property
    def file_name(self) -> str:
        """Its name in a cache."""
        return self.file or self.url.rpartition("/")[2]


@cache
def catalog() -> dict[str, Published]:
    """All short names, in the order of the file."""
    rows = tomllib.loads(CATALOG.read_text("utf-8"))["weights"]
    return {row["name"]: Published.model_validate(row) for row in rows}


def published(name: str) -> Published:
    """The row of a short name. Hyphens and underscores do not count, and a `vit_s16` is a `deit_s16`.

    Raises `UserError` for an unknown one, with the nearest and what there is of that method.
    """
    rows = catalog()
    if name in rows:
        return rows[name]
    by_plain_name = {_plain(known): row for known, row in rows.items()}
    if _plain(name) in by_plain_name:
        return by_plain_name[_plain(name)]
    method = _plain(name.partition(":")[0])
    of_method = [known for known in rows if _plain(known.partition(":")[0]) == method]
    there_are = f" Known of that method: {', '.join(of_method)}." if of_method else ""
    raise UserError(
        f"no published weights are called {name!r}.{did_you_mean(name, rows)}{there_are} sslbench list weights shows "
        "all; other names are timm:NAME.TAG, torchvision:WEIGHTS and hf:OWNER/NAME"
    )


def at_address(url: str) -> Published | None:
    """The row that knows an address."""
    return next((row for row in catalog().values() if row.url == url), None)


def _plain(name: str) -> str:
    return re.sub(r":vit_s(\d+)", r":deit_s\1", name.lower()).replace("-", "").replace("_", "")
