"""The folder where what can be made again is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$SSLBENCH_CACHE, else $XDG_CACHE_HOME/sslbench, else ~/.cache/sslbench."""
    own, shared = os.environ.get("SSLBENCH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    return (Path(shared) if shared else Path.home() / ".cache") / "sslbench"
