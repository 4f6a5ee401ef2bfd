"""Loading a third-party plugin in a separate process, which it may end, hang or fill with threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from ssl_bench.errors import UserError
from ssl_bench.registry.entry_points import Plugin
from ssl_bench.registry.third_party import IMPORT_SECONDS

GRACE_SECONDS = 30.0
"""Added to the limit before the process is killed; includes the time to start Python and torch."""
LOADS = "it loads\n"


def why_broken(plugin: Plugin, seconds: float = IMPORT_SECONDS) -> str:
    """Load a plugin in a separate process; returns why it cannot be used, or "" if it can."""
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
        output, _ = child.communicate(timeout=seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # with what it started
        child.wait()
        return f"{plugin.target} of {plugin.origin} hangs: it is not imported after {seconds:g} s"
    if child.returncode == 0 and output.endswith(LOADS):
        return ""
    return output.strip() or f"{plugin.target} of {plugin.origin} ends the process that imports it ({child.returncode})"


def _try() -> None:
    """Runs in the process of `why_broken`."""
    kind, name, target, distribution, version, seconds = sys.argv[1:]
    outcome = LOADS
    try:
        Plugin(kind, name, target, distribution, version).load(float(seconds))  # type: ignore[arg-type]
    except UserError as error:
        outcome = str(error)
    os.write(1, outcome.encode())  # not print: the import may have replaced sys.stdout
    os._exit(0)  # not sys.exit: threads of the import would keep the process alive
