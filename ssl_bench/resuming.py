"""The command that resumes a run, to be printed and typed as it is."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


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
