"""Where a training runs, and how much of it is free."""

import contextlib
import ctypes
import os
from pathlib import Path

import torch

from recursight.errors import InputError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA, else MPS, else the CPU; any other name is taken at its word.

    Raises:
        InputError: if the named device is not on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return choose_device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cpu":
        keep_freed_memory()
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= present[device.type]:
        raise InputError(f"train.device: this machine has no {name!r}; set it to 'auto' or 'cpu'.")
    return device


def keep_freed_memory() -> None:
    """Has the C library keep what a training step frees for the next step.

    By default glibc maps each large tensor anew and hands it back when freed; on long sequences the kernel then spends
    more time on clearing pages than the step on computing. Other C libraries are left as they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def free_bytes(device: torch.device) -> int:
    """Memory that a data set could take on a device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        available = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
        return int(available.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # macOS tells only what is built in
