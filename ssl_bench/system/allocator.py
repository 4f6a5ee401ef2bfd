"""Freed memory stays with the process, on Linux with glibc: a training step then allocates without the kernel.

glibc asks the kernel for every block over 32 MiB on its own and gives it back when it is freed, and the kernel clears
its pages anew each time. A training step frees and allocates the same tensors again and again. Here blocks come from
the heap and stay there (`mallopt`, man 3 mallopt). No number changes.
"""

from __future__ import annotations

import ctypes
import os
import sys

USERS_OWN = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
"""Who sets one of these has decided how glibc allocates."""
TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of mallopt, malloc.h."""
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}
RETURNING = {MMAP_MAX: 65536, TRIM_THRESHOLD: 128 * 1024}
"""glibc's defaults."""


def keep_freed_memory(keep: bool = True) -> bool:
    """Keep what is freed, for this process from now on, or return it again; whether glibc does so.

    Kept blocks leave gaps that no tensor fits: a process grows larger. Does nothing on other systems, and where the
    environment decides how glibc allocates.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in USERS_OWN):
        return False
    libc = _libc()
    if libc is None:
        return False
    done = [libc.mallopt(parameter, value) for parameter, value in (KEEPING if keep else RETURNING).items()]
    if not keep:
        libc.malloc_trim(0)
    return all(done)


def _libc() -> ctypes.CDLL | None:
    """The C library, if it is glibc; only that has `gnu_get_libc_version`."""
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # where a program's own symbols cannot be opened
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") else None
