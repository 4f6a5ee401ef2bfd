"""Importing many plugins to see which are broken."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ssl_bench.errors import UserError
from ssl_bench.registry.entry_points import HOME, Plugin
from ssl_bench.registry.own_process import why_broken


def why_broken_each(plugins: Sequence[Plugin], seconds: float) -> dict[Plugin, str]:
    """Why each cannot be loaded, "" where it can; third-party plugins two at a time, each in a separate process."""
    third_party = [plugin for plugin in plugins if plugin.distribution != HOME]
    with ThreadPoolExecutor(2) as pool:
        faults = dict(zip(third_party, pool.map(lambda plugin: why_broken(plugin, seconds), third_party), strict=True))
    for plugin in plugins:
        if plugin.distribution == HOME:
            try:
                plugin.load()
                faults[plugin] = ""
            except UserError as error:
                faults[plugin] = str(error)
    return faults
