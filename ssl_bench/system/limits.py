"""Cores and memory that this process may use: less than the machine has in a container, a batch job or a cpuset."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores this process may use, at least 1: by its affinity, and by the limit of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cores()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cgroup_cores(root: Path = CGROUP) -> float | None:
    """Cores' worth of CPU time that a container may use (`docker run --cpus=2`); None without a limit.

    Version 2 has "quota period" in microseconds in cpu.max, version 1 the two in files of their own
    (docs.kernel.org, admin-guide/cgroup-v2 and scheduler/sched-bwc).
    """
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        limit = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return limit if limit > 0 else None


def memory_bytes(root: Path = CGROUP) -> int | None:
    """Memory that this process may use: the machine's, or less in a container with a limit; None where the system does
    not tell."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return min(physical, int((root / name).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return physical
