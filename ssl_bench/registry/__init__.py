"""Names to plugins: entry points found without importing anything, loaded when asked for."""

from ssl_bench.registry.entry_points import (
    API_VERSION,
    HOME,
    KINDS,
    Kind,
    Plugin,
    backbone,
    blame,
    dataset,
    evaluator,
    fault,
    find,
    group_of,
    method,
    names,
    plugins,
    refresh,
)

__all__ = [
    "API_VERSION",
    "HOME",
    "KINDS",
    "Kind",
    "Plugin",
    "backbone",
    "blame",
    "dataset",
    "evaluator",
    "fault",
    "find",
    "group_of",
    "method",
    "names",
    "plugins",
    "refresh",
]
