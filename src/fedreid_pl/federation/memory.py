"""Memory of this process: its peak, and what the C library does with memory that was freed."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, malloc.h
KEPT = 2**31 - 1  # bytes, the most that mallopt takes
BLOCKS = (2**30, 2**25)  # bytes: 32 MiB is the most that older versions take


def keep_freed_memory() -> bool:
    """Has glibc keep freed memory for the next batch in place of giving it back to the system.

    By default it returns large blocks at once, and the system clears every page of them anew when the next batch asks
    for the same memory: with ResNet-50 on the CPU more than a million page faults a step, a third of its time. The
    price is memory that stays with the process; docs/performance.md has both. Nothing is changed where the user has
    set glibc's own variables (`MALLOC_..._`, `GLIBC_TUNABLES`), or where there is no glibc.

    Returns:
        Whether it was set.
    """
    chosen = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if chosen or any(name.startswith("MALLOC_") for name in os.environ) or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    blocks = any(mallopt(MMAP_THRESHOLD, size) for size in BLOCKS)
    return bool(blocks and mallopt(TRIM_THRESHOLD, KEPT))


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
