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
    return " ".join(["sslbench", *(shell_quoted(str(word)) for word in (*words, *elsewhere))])


def results_of(run_dir: Path) -> Path:
    """The folder that `--results` names for a run in RESULTS/runs/RUN."""
    return run_dir.parent.parent


def resume_command(run_dir: Path) -> str:
    """E.g. `sslbench run --resume 'my results/runs/dino-1'`, quoted for a shell."""
    text = os.fspath(run_dir)
    if "/" not in text or text.startswith("-"):
        text = f"./{text}"
    return f"sslbench run --resume {shell_quoted(text)}"


def shell_quoted(text: str) -> str:
    """`text` as one word of a shell; bytes of a path that are not UTF-8 as bash and zsh read them: $'\\xe9'."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        plain = "".join(
            chr(byte) if 32 < byte < 127 and chr(byte) not in "\\'" else f"\\x{byte:02x}" for byte in os.fsencode(text)
        )
        return f"$'{plain}'"
    return shlex.quote(text)
