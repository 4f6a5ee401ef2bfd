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
MOST = 2**31 - 1
"""Bytes at the end of the heap that are kept, the most that mallopt takes."""


def keep_freed_memory() -> bool:
    """Keep what is freed, for this process from now on; whether it is so.

    Does nothing on other systems, and where the environment decides how glibc allocates.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in USERS_OWN):
        return False
    mallopt = getattr(_libc(), "mallopt", None)
    return mallopt is not None and bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, MOST))


def _libc() -> ctypes.CDLL | None:
    """The C library, if it is glibc; only that has `gnu_get_libc_version`."""
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # where a program's own symbols cannot be opened
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") else None
