"""Running a trained network: its answers to a whole split, and how fast it answers."""

import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from recursight.errors import InputError
from recursight.models.clips import ClipNetwork
from recursight.tasks import Task

WARM_UP, TIMED, PAUSE_SECONDS = 5, 20, 0.01


class Program(nn.Module):
    """A network with its task's answers: raw frames in, answers out. It is what the registry exports."""

    def __init__(self, network: nn.Module, task: Task) -> None:
        super().__init__()
        self.network = network
        self.answers = task.answers

    def forward(self, frames: Tensor, *lengths: Tensor) -> Tensor:
        """Answers to images, (B, ...), or to clips of these lengths: (B, ...), or (F, ...) one for each frame."""
        return self.answers(self.network(frames, *lengths).float())

    def answer(self, frames: np.ndarray) -> np.ndarray:
        """Float64 answers (N, ...) to uint8 images (N, H, W, C); or to one clip (T, H, W, C). On the CPU."""
        lengths = () if self.stills else (torch.tensor([len(frames)]),)
        with torch.inference_mode():
            found: np.ndarray = self(torch.from_numpy(frames), *lengths).double().numpy()
        return found

    @property
    def stills(self) -> bool:
        """Whether the network reads single images."""
        return not isinstance(self.network, ClipNetwork)


def answers(
    program: nn.Module,
    frames: np.ndarray,
    first_frames: np.ndarray,
    *,
    lengths: np.ndarray | None = None,
    batch_size: int,
    device: torch.device,
) -> np.ndarray:
    """Answers to some images or clips, float32: (N, ...); or of a network that answers per frame, packed (F, ...).

    Args:
        program: in eval mode, on `device`.
        frames: uint8, F H W C; may be memory-mapped: one batch at a time is read.
        first_frames: of each image or clip, in the order of the answers.
        lengths: of clips, in frames; None for images.
        batch_size: images in one step, or frames of clips, about.
        device: where to compute.

    Raises:
        InputError: if an answer is no number.
    """
    parts = []
    with torch.inference_mode():
        for chosen in _groups(len(first_frames), lengths, batch_size):
            first = first_frames[chosen]
            if lengths is None:
                inputs = [_on(device, frames[first])]
            else:
                spans = [frames[at : at + length] for at, length in zip(first, lengths[chosen], strict=True)]
                inputs = [_on(device, np.concatenate(spans)), _on(device, lengths[chosen])]
            parts.append(program(*inputs).cpu())
    answer: np.ndarray = torch.cat(parts).numpy()
    if not np.isfinite(answer).all():
        raise InputError("The network answers with NaN or infinity; train it again with a lower learning rate.")
    return answer


def _groups(count: int, lengths: np.ndarray | None, batch_size: int) -> list[slice]:
    """Examples that are answered together: one after another, with about so many frames in all."""
    ends = np.arange(1, count + 1) if lengths is None else np.cumsum(lengths)
    bounds = [0]
    while bounds[-1] < count:
        before = ends[bounds[-1] - 1] if bounds[-1] else 0
        bounds.append(max(bounds[-1] + 1, int(np.searchsorted(ends, before + batch_size, side="right"))))
    return [slice(start, end) for start, end in pairwise(bounds)]


def latency_milliseconds(answer: Callable[[np.ndarray], np.ndarray], example: np.ndarray) -> float:
    """Median time from one image or clip in memory to its answer in memory, for those that come one at a time.

    Before each one the process pauses, as a server does between requests. In a tight loop every cache is warm, and a
    small network answers in half of the time.

    Args:
        answer: from uint8 images N H W C to their answers, or from a clip T H W C.
        example: one image, 1 H W C, or one clip.
    """
    seconds = []
    for _ in range(WARM_UP + TIMED):
        time.sleep(PAUSE_SECONDS)
        start = time.perf_counter()
        answer(example)
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds[WARM_UP:])


def latency(answer: Callable[[np.ndarray], np.ndarray], example: np.ndarray, *, threads: int) -> dict[str, float | str]:
    """The latency of a network on the CPU, for reports, cards and MLflow.

    Args:
        answer: from uint8 images N H W C to their answers, or from a clip T H W C.
        example: one image, 1 H W C, or one clip.
        threads: of torch while it is measured.

    Returns:
        latency_ms of one image or clip, and latency_on: device and threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        milliseconds = latency_milliseconds(answer, example)
    finally:
        torch.set_num_threads(before)
    return {"latency_ms": milliseconds, "latency_on": f"cpu, {threads} thread{'s' * (threads > 1)}"}


def images_per_second(
    program: nn.Module, images: np.ndarray, *, device: torch.device, clip: bool = False, seconds: float = 0.2
) -> float:
    """Images, or frames, answered per second when they come in one batch: the median of several, after warm-up.

    Args:
        program: as above.
        images: the batch, uint8, B H W C.
        device: where to compute.
        clip: whether they are the frames of one clip.
        seconds: roughly how long to measure.
    """
    return len(images) / _median_seconds(program, [images, np.array([len(images)])][: 1 + clip], device, seconds)


def _median_seconds(program: nn.Module, inputs: list[np.ndarray], device: torch.device, seconds: float) -> float:
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(2):
            program(*(_on(device, each) for each in inputs)).cpu()
        while len(times) < 5 or (sum(times) < seconds and len(times) < 200):
            start = time.perf_counter()
            program(*(_on(device, each) for each in inputs)).cpu()  # the copy back waits for the device
            times.append(time.perf_counter() - start)
    return median(times)


def _on(device: torch.device, images: np.ndarray) -> Tensor:
    # A memory-mapped array is read-only, which torch cannot express: it gets a copy of its own.
    return torch.from_numpy(np.array(images, order="C", subok=False)).to(device)
