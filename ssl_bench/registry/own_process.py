"""Loading a third-party plugin in a process of its own, which it may end, hang or fill with threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from ssl_bench.errors import UserError
from ssl_bench.registry.entry_points import Plugin
from ssl_bench.registry.third_party import IMPORT_SECONDS

GRACE_SECONDS = 30.0
"""What hangs where no signal reaches it is ended from outside so much later; starting Python and torch is included."""
LOADS = "it loads\n"


def why_broken(plugin: Plugin, seconds: float = IMPORT_SECONDS) -> str:
    """Load a plugin in a process of its own; returns why it cannot be used, or "" when it can."""
    words = [plugin.kind, plugin.name, plugin.target, plugin.distribution, plugin.version, str(seconds)]
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", f"from {__name__} import _try; _try()", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # "" would be the working directory
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = child.communicate(timeout=seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # with what it started
        child.wait()
        return f"{plugin.target} of {plugin.origin} hangs: it is not imported after {seconds:g} s"
    if child.returncode == 0 and said.endswith(LOADS):
        return ""
    return said.strip() or f"{plugin.target} of {plugin.origin} ends the process that imports it ({child.returncode})"


def _try() -> None:
    """What the process of `why_broken` does."""
    kind, name, target, distribution, version, seconds = sys.argv[1:]
    said = LOADS
    try:
        Plugin(kind, name, target, distribution, version).load(float(seconds))  # type: ignore[arg-type]
    except UserError as error:
        said = str(error)
    os.write(1, said.encode())  # whatever the import made of sys.stdout
    os._exit(0)  # threads that the import started must not keep the process
