"""The folder where what can be made again is kept between runs."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """$SSLBENCH_CACHE, else $XDG_CACHE_HOME/sslbench, else ~/.cache/sslbench.

    Without a home (no HOME and no entry for the user, as in many containers): a folder of the user's own below the
    temporary one, and a line on standard error that names SSLBENCH_CACHE.
    """
    own, shared = os.environ.get("SSLBENCH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    if shared:
        return Path(shared) / "sslbench"
    home = os.path.expanduser("~")
    if os.path.isabs(home):
        return Path(home) / ".cache" / "sslbench"
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    folder = Path(tempfile.gettempdir()) / f"sslbench-cache{user}"
    _tell(f"note: this user has no home folder, so the cache is {folder}. SSLBENCH_CACHE=FOLDER keeps it elsewhere.")
    return folder


@functools.cache
def _tell(text: str) -> None:
    """Say it once."""
    print(text, file=sys.stderr)
