"""The folder where what can be made again is kept between runs."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path


def cache_folder() -> Path:
    """$SSLBENCH_CACHE, else $XDG_CACHE_HOME/sslbench, else ~/.cache/sslbench.

    Without a home (no HOME and no entry for the user, as in many containers): a folder of the user's own below the
    temporary one, and a warning that names SSLBENCH_CACHE.
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
    warnings.warn(
        f"this user has no home folder, so the cache is {folder}. Set SSLBENCH_CACHE=FOLDER to keep it elsewhere.",
        stacklevel=2,
    )
    return folder
