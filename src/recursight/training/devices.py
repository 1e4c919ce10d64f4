"""Where a training runs, and how much of it is free."""

import os
from pathlib import Path

import torch

from recursight.errors import InputError


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA, else MPS, else the CPU; any other name is taken at its word.

    Raises:
        InputError: if the named device is not on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= present[device.type]:
        raise InputError(f"execution.device: this machine has no {name!r}; set it to 'auto' or 'cpu'.")
    return device


def free_bytes(device: torch.device) -> int:
    """Memory that a data set could take on a device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        available = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
        return int(available.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # macOS tells only what is built in
