"""Measures the peak memory of this process, and controls what the C library does with freed memory."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, malloc.h
KEPT = 2**31 - 1  # bytes, the largest value that mallopt accepts
BLOCKS = (2**30, 2**25)  # bytes; 32 MiB is the largest value that older versions accept


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for the next batch instead of returning it to the system.

    By default glibc returns large blocks immediately, and the system clears every page again when the next batch needs
    the same memory. With ResNet-50 on the CPU this causes more than a million page faults per step, a third of the time
    of a step. The price is memory that stays with the process; docs/performance.md has both figures. The function
    changes nothing if the user has set glibc's own variables (`MALLOC_..._`, `GLIBC_TUNABLES`), or if the system has no
    glibc.

    Returns:
        Whether the setting was changed.
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
    """Returns the largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
