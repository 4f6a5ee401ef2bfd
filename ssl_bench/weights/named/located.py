"""What a name of weights stands for: a file or folder on this machine, and what its source says of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_bench.blocks.preprocessing import Preprocessing


@dataclass(frozen=True)
class Located:
    """Weights found by name, or given as a path, of which nothing more is known."""

    path: Path = Path()
    name: str = ""
    """Complete, e.g. "hf:facebook/dino-vits16"; "" for a path."""
    address: str = ""
    """Where the file is published."""
    revision: str = ""
    """The commit of a repository on a hub."""
    arch: str | None = None
    """As `--arch` takes it; None: the one that fits."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the backbone, beside its defaults, where `arch` is taken."""
    key: str | None = None
    """Which network of the file; None: as the format says."""
    method: str = ""
    """What trained them; "": as the format says."""
    evaluated: str = ""
    """The method or library whose authors' evaluation counts where the file itself says nothing."""
    preprocessing: Preprocessing | None = None
    """As the source evaluates; None: as the format says."""

    @property
    def pinned(self) -> str:
        """The name with the commit that was read: the same weights at any later time."""
        if self.revision and self.name.startswith("hf:"):
            return f"{self.name.partition('@')[0]}@{self.revision}"
        return self.name
