"""sslbench: benchmark self-supervised vision methods with one shared runner.

In Python: `ssl_bench.load_results`, `load_curves`, `run` and `evaluate`, each imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_bench.records.frames import load_curves, load_results
    from ssl_bench.runs.functions import evaluate, run

__version__ = "0.1.0"
__all__ = ["evaluate", "load_curves", "load_results", "run"]

_HOMES = {
    "evaluate": "runs.functions",
    "load_curves": "records.frames",
    "load_results": "records.frames",
    "run": "runs.functions",
}
"""The module that defines each: `import ssl_bench` alone imports neither pandas nor torch."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssl_bench' has no attribute {name!r}")
    return getattr(import_module(f"ssl_bench.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
