"""Memory that is kept from one step to the next."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def keep_freed_memory() -> None:
    """Has the C library keep what a step frees for the next step.

    By default glibc maps each large tensor anew and hands it back when freed; on long sequences the system then spends
    more time on clearing pages than the step on computing. Other C libraries are left as they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
