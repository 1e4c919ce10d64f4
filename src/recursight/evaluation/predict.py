"""Running a trained network: its answers to a whole split, and how fast it answers."""

import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from recursight.errors import InputError
from recursight.tasks import Task

WARM_UP, TIMED, PAUSE_SECONDS = 5, 20, 0.01


class Program(nn.Module):
    """A network with its task's answers: raw frames in, (B, ...) answers out. It is what the registry exports."""

    def __init__(self, network: nn.Module, task: Task) -> None:
        super().__init__()
        self.network = network
        self.answers = task.answers

    def forward(self, inputs: Tensor) -> Tensor:
        return self.answers(self.network(inputs).float())

    def answer(self, images: np.ndarray) -> np.ndarray:
        """Float64 answers (N, ...) to uint8 images (N, H, W, C) in memory, on the CPU; in one batch."""
        with torch.inference_mode():
            found: np.ndarray = self(torch.from_numpy(images)).double().numpy()
        return found


def answers(
    program: nn.Module, frames: np.ndarray, rows: np.ndarray, *, batch_size: int, device: torch.device
) -> np.ndarray:
    """Answers to some images, float32, len(rows) × ...

    Args:
        program: in eval mode, on `device`; (B, H, W, C) uint8 to (B, ...).
        frames: uint8, F H W C; may be memory-mapped: one batch at a time is read.
        rows: which of them, in the order of the answers.
        batch_size: images in one step.
        device: where to compute.

    Raises:
        InputError: if an answer is no number.
    """
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            parts.append(program(_on(device, frames[rows[start : start + batch_size]])).cpu())
    answer: np.ndarray = torch.cat(parts).numpy()
    if not np.isfinite(answer).all():
        raise InputError("The network answers with NaN or infinity; train it again with a lower learning rate.")
    return answer


def latency_milliseconds(answer: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> float:
    """Median time from one image in memory to its answer in memory, for images that come one at a time.

    Before each one the process pauses, as a server does between requests. In a tight loop every cache is warm, and a
    small network answers in half of the time.

    Args:
        answer: from uint8 images N H W C to their answers.
        image: uint8, H W C.
    """
    seconds = []
    for _ in range(WARM_UP + TIMED):
        time.sleep(PAUSE_SECONDS)
        start = time.perf_counter()
        answer(image[np.newaxis])
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds[WARM_UP:])


def latency(
    answer: Callable[[np.ndarray], np.ndarray], input_shape: Sequence[int], *, threads: int
) -> dict[str, float | str]:
    """The latency of a network on the CPU, for reports, cards and MLflow.

    Args:
        answer: from uint8 images N H W C to their answers.
        input_shape: H, W, C.
        threads: of torch while it is measured.

    Returns:
        latency_ms of one image, and latency_on: device and threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        milliseconds = latency_milliseconds(answer, np.zeros(input_shape, np.uint8))
    finally:
        torch.set_num_threads(before)
    return {"latency_ms": milliseconds, "latency_on": f"cpu, {threads} thread{'s' * (threads > 1)}"}


def images_per_second(program: nn.Module, images: np.ndarray, *, device: torch.device, seconds: float = 0.2) -> float:
    """Images answered per second when they come in one batch: the median of several, after warm-up.

    Args:
        program: as above.
        images: the batch, uint8, B H W C.
        device: where to compute.
        seconds: roughly how long to measure.
    """
    return len(images) / _median_seconds(program, images, device, seconds)


def _median_seconds(program: nn.Module, images: np.ndarray, device: torch.device, seconds: float) -> float:
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(2):
            program(_on(device, images)).cpu()
        while len(times) < 5 or (sum(times) < seconds and len(times) < 200):
            start = time.perf_counter()
            program(_on(device, images)).cpu()  # the copy back waits for the device
            times.append(time.perf_counter() - start)
    return median(times)


def _on(device: torch.device, images: np.ndarray) -> Tensor:
    # A memory-mapped array is read-only, which torch cannot express: it gets a copy of its own.
    return torch.from_numpy(np.array(images, order="C", subok=False)).to(device)
