"""Memory that is kept from one step to the next."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8  # from glibc's malloc.h

_chosen: list[int | None] = []


def is_chosen() -> bool:
    """Whether `keep_freed_memory` was called in this process."""
    return bool(_chosen)


def keep_freed_memory(largest: int | None = None) -> None:
    """Has the C library keep what a step frees for the next step.

    By default glibc maps each large tensor anew and hands it back when freed; on long sequences, and after
    convolutions, the system then spends as much time on clearing pages as the step on computing. Other C libraries are
    left as they are.

    Args:
        largest: bytes of a block that is kept, at most 32 MiB; larger ones go back. None keeps all.
    """
    _chosen.append(largest)
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_TRIM_THRESHOLD, -1)
        if largest is None:
            mallopt(M_MMAP_MAX, 0)
        else:
            mallopt(M_MMAP_THRESHOLD, largest)
            mallopt(M_ARENA_MAX, 1)  # heaps of other threads would give freed memory back all the same
