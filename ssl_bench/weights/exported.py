"""What `sslbench export` writes beside the weights, so that they are read back as exactly the network they were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ssl_bench.blocks.preprocessing import Preprocessing

MANIFEST = "sslbench.json"
"""The file beside the weights."""
HEADER = "sslbench"
"""The entry with the same text in the header of a safetensors or ONNX file, without the file's own SHA-256."""


class Exported(BaseModel):
    """An exported network: where it is from, what builds it here, how it sees images."""

    model_config = ConfigDict(frozen=True)

    file: str
    """Name of the file of weights beside it."""
    sha256: str = ""
    """Of that file; empty in a header."""
    target: str
    """What loads it, as `--to` takes it."""
    source: str
    """The run's id, or the name of the file that was converted."""
    source_sha256: str = ""
    """Of the converted file; empty for a run."""
    digest: str = ""
    """Of the run's recipe; empty for a converted file."""
    method: str
    network: str
    """Which network of the method or file, e.g. "teacher"."""
    backbone: str
    """Registered name, with complete `settings`."""
    settings: dict[str, Any]
    image_px: int
    """Side of the images it was built for."""
    norm_eps: tuple[float, ...] = ()
    """Epsilon of every norm, in order."""
    preprocessing: Preprocessing
    checked: dict[int, float] = {}
    """Image size -> largest difference of its features from the network's here, as a share of the largest feature."""
    versions: dict[str, str] = {}

    @property
    def arch(self) -> str:
        """As `--arch` takes it."""
        return f"{self.backbone}:{self.settings['name']}" if "name" in self.settings else self.backbone


def exported_as(path: Path, sha256: str, header: Mapping[str, str]) -> Exported | None:
    """What is known of a file that `sslbench export` wrote, from its header or from beside it; None for any other.

    A `sslbench.json` that describes another file counts as none.
    """
    try:
        if HEADER in header:
            return Exported.model_validate_json(header[HEADER])
        beside = Exported.model_validate(json.loads((path.parent / MANIFEST).read_text("utf-8")))
    except (OSError, ValueError, ValidationError, RecursionError):
        return None
    return beside if beside.sha256 == sha256 else None
