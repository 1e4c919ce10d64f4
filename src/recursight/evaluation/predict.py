"""Running a trained network: probabilities of a whole split, and how fast it answers."""

import time
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from recursight.errors import InputError


def probabilities(
    model: nn.Module, images: np.ndarray, rows: np.ndarray, *, batch_size: int, device: torch.device
) -> np.ndarray:
    """Probabilities of every class, float32, len(rows) × K.

    Args:
        model: in eval mode, on `device`; (B, H, W, C) uint8 to (B, K) logits.
        images: uint8, N H W C; may be memory-mapped: one batch at a time is read.
        rows: which images, in the order of the answer.
        batch_size: images in one step.
        device: where to compute.

    Raises:
        InputError: if the network answers with something that is no number.
    """
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            batch = _on(device, images[rows[start : start + batch_size]])
            parts.append(model(batch).float().softmax(dim=1).cpu())
    answer = torch.cat(parts).numpy()
    if not np.isfinite(answer).all():
        raise InputError("The network answers with NaN or infinity; train it again with a lower learning rate.")
    return answer


def latency_milliseconds(model: nn.Module, image: np.ndarray, *, device: torch.device, seconds: float = 0.2) -> float:
    """Median time from one image in memory to its answer in memory, after warm-up.

    Args:
        model: as above.
        image: uint8, H W C.
        device: where to compute; moving the image there and the answer back counts.
        seconds: roughly how long to measure; at least five answers are timed.
    """
    return 1000 * _median_seconds(model, image[np.newaxis], device, seconds)


def images_per_second(model: nn.Module, images: np.ndarray, *, device: torch.device, seconds: float = 0.2) -> float:
    """Images answered per second when they come in one batch, measured like latency.

    Args:
        model: as above.
        images: the batch, uint8, B H W C.
        device: where to compute.
        seconds: roughly how long to measure.
    """
    return len(images) / _median_seconds(model, images, device, seconds)


def _median_seconds(model: nn.Module, images: np.ndarray, device: torch.device, seconds: float) -> float:
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(2):
            model(_on(device, images)).cpu()
        while len(times) < 5 or (sum(times) < seconds and len(times) < 200):
            start = time.perf_counter()
            model(_on(device, images)).cpu()  # the copy back waits for the device
            times.append(time.perf_counter() - start)
    return median(times)


def _on(device: torch.device, images: np.ndarray) -> Tensor:
    # A memory-mapped array is read-only, which torch cannot express: it gets a copy of its own.
    return torch.from_numpy(np.array(images, order="C", subok=False)).to(device)
