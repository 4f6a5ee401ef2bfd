"""safetensors: the tensors alone, under timm's names where the network is built on timm."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from ssl_bench.export.source import Source
from ssl_bench.export.targets import Compute, Target, Written
from ssl_bench.weights.exported import HEADER
from ssl_bench.weights.loading import load_network, open_weights
from ssl_bench.weights.tensor_file import detached

FILE = "model.safetensors"


def write(source: Source, folder: Path, header: str) -> Written:
    """One file, with the header."""
    save_file(detached(source.tensors), folder / FILE, metadata={"format": "pt", HEADER: header})
    code = f"""from safetensors.torch import load_file

tensors = load_file({FILE!r})  # then: model.load_state_dict(tensors)"""

    def load() -> Compute:
        return load_network(open_weights(folder / FILE)).backbone

    return Written(code, load)


TARGET = Target(FILE, write)
