"""The weights that a finished run keeps: written with what they are, read only when their digest holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ssl_bench.records.state_file import DamagedFile, parse_strictly
from ssl_bench.system.files import write_atomically
from ssl_bench.weights.tensor_file import load_weights, save_weights

WEIGHTS_FILE, DIGEST_FILE = "weights.safetensors", "weights.json"


def keep_weights(run_dir: Path, weights: Mapping[str, Tensor], description: Mapping[str, str]) -> None:
    """Write a run's weights and, beside them, their SHA-256. `description` stands in the file's header."""
    sha256 = save_weights(run_dir / WEIGHTS_FILE, weights, description)
    write_atomically(run_dir / DIGEST_FILE, (json.dumps({"sha256": sha256}) + "\n").encode())


def kept_weights(run_dir: Path) -> dict[str, Tensor]:
    """The weights of a run, checked against the digest kept beside them.

    Raises `UserError` where they are missing or damaged, or the digest is.
    """
    weights, digest_file = run_dir / WEIGHTS_FILE, run_dir / DIGEST_FILE
    if not weights.exists():
        return load_weights(weights)  # raises, and says what to do
    try:
        content = parse_strictly(digest_file.read_bytes())
        sha256 = content["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise DamagedFile(f"{digest_file} is damaged or missing ({error}): {weights.name} cannot be verified") from None
    return load_weights(weights, str(sha256))
