"""A run or weights, as the verbs take them that draw pictures of one network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from ssl_bench.weights.loaded import Loaded

ARCH_HELP = "with --weights: the architecture [default: the registered one that fits]"
KEY_HELP = "with --weights: which network, e.g. student [default: the paper's]"
AS_HELP = "with --weights: the method that trained them, which decides how positions are resampled"
SET_HELP = "with --weights: backbone.SETTING or preprocessing.SETTING"
ACCEPT_HELP = "with --weights: load although the file says another number of heads"
SECTIONS = ("backbone", "preprocessing")


@dataclass(frozen=True)
class NetworkSource:
    """What `--run`, or `--weights` and its options, were given."""

    run: str | None
    weights: Path | None
    arch: str | None
    key: str | None
    method: str | None
    assignments: tuple[str, ...]
    """`--set`, as typed."""
    accept_mismatch: bool

    def run_name(self) -> str:
        """The run. Raises `UserError` where there is none, or options that only weights have."""
        if self.run is None:
            raise UserError("give the network: --run RUN, or --weights WEIGHTS with --arch ARCH")
        given: dict[str, object] = {
            "--arch": self.arch,
            "--key": self.key,
            "--as": self.method,
            "--set": self.assignments,
        }
        given["--accept-mismatch"] = self.accept_mismatch
        if names := [name for name, value in given.items() if value]:
            raise UserError(f"{', '.join(names)} are for --weights, and {self.run} is a run: leave them out")
        return self.run

    def load(self) -> Loaded:
        """The weights as a network. Raises `UserError` for whatever is not exactly that network, and beside a run."""
        from ssl_bench.runs.weights_network import require_sections, weights_network
        from ssl_bench.settings import parse_assignments

        assert self.weights is not None, "asked for weights"
        if self.run is not None:
            raise UserError(f"--run {self.run} and --weights {self.weights} are two networks: give one of them")
        values: dict[str, Any] = parse_assignments(self.assignments)
        require_sections(values, SECTIONS, "a network from a file")
        loaded, _ = weights_network(
            self.weights,
            arch=self.arch,
            key=self.key,
            method=self.method,
            values=values,
            accept_mismatch=self.accept_mismatch,
        )
        for note in loaded.notes:
            print(f"  ... {note}")
        return loaded
