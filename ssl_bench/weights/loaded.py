"""A network with weights from elsewhere, and everything that a record says of it."""

from __future__ import annotations

from dataclasses import dataclass

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.records.recipe import arch_text
from ssl_bench.settings import Settings
from ssl_bench.weights.recognize import Candidate, Recognized


@dataclass(frozen=True)
class Loaded:
    """A network with the weights of a file, in eval mode on the CPU."""

    backbone: Backbone
    plugin: str
    """Registered name of the backbone."""
    config: Settings
    """Its complete settings."""
    recognized: Recognized
    candidate: Candidate
    used: int
    """Tensors of the file that fill it: all that it has."""
    notes: tuple[str, ...]
    """What was changed or accepted on the way, in words."""
    preprocessing: Preprocessing

    @property
    def arch(self) -> str:
        """As `--arch` takes it."""
        return arch_text(self.plugin, self.config.model_dump())
