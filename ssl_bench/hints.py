"""Commands that messages advise: complete, quoted for the shell, so that they work as they are printed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

RESULTS = Path(os.environ.get("SSLBENCH_RESULTS", "results"))
"""Where runs and tables are kept unless --results names another folder."""


def command(*words: str | Path, results: Path | None = None) -> str:
    """`sslbench WORDS`, with `--results` where it is not the default.

    >>> command("show", "my run"), command("table", results=Path("elsewhere"))
    ("sslbench show 'my run'", 'sslbench table --results elsewhere')
    """
    elsewhere = [] if results is None or results == RESULTS else ["--results", results]
    return shlex.join(["sslbench", *map(str, [*words, *elsewhere])])


def results_of(run_dir: Path) -> Path:
    """The folder that `--results` names for a run in RESULTS/runs/RUN."""
    return run_dir.parent.parent
