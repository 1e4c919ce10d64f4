"""Batches: shuffled and seeded, from the device's memory where the data set fits, else streamed from disk."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from recursight.tasks import Batch
from recursight.training.devices import free_bytes


class Batches:
    """The examples of one split, in batches on the device.

    Args:
        frames: uint8, F H W C, of all examples one after another; a memory map is read as little as possible.
        first_frames: of the examples of this split, N.
        lengths: frames of each, N.
        targets: of each, N ...
        batch_size: examples in a batch; the last one of an epoch may be smaller.
        device: where batches are wanted.
        memory_fraction: the split is copied to the device if it takes at most this share of its free memory.
    """

    def __init__(
        self,
        frames: np.ndarray,
        first_frames: np.ndarray,
        lengths: np.ndarray,
        targets: np.ndarray,
        *,
        batch_size: int,
        device: torch.device,
        memory_fraction: float,
    ) -> None:
        self.frames = frames
        self.first_frames, self.lengths = first_frames, lengths
        self.batch_size = batch_size
        self.device = device
        self.stills = bool((lengths == 1).all())
        self.targets = torch.from_numpy(targets).to(device)
        size_bytes = int(lengths.sum()) * int(np.prod(frames.shape[1:]))
        self.resident = size_bytes <= memory_fraction * free_bytes(device)
        if self.resident:
            rows = first_frames if self.stills else _frame_numbers(first_frames, lengths)
            self.on_device = torch.from_numpy(np.ascontiguousarray(frames[rows])).to(device)  # F H W C

    def __len__(self) -> int:
        """Batches in an epoch."""
        return math.ceil(len(self.lengths) / self.batch_size)

    @property
    def count(self) -> int:
        """Examples in an epoch."""
        return len(self.lengths)

    def shuffled(self, seed: int) -> Iterator[Batch]:
        """One epoch in an order that the seed alone decides."""
        return self._epoch(torch.randperm(self.count, generator=torch.Generator().manual_seed(seed)))

    def in_order(self) -> Iterator[Batch]:
        """One epoch in the order of the rows."""
        return self._epoch(torch.arange(self.count))

    def _epoch(self, order: Tensor) -> Iterator[Batch]:
        if not self.resident:
            yield from self._streamed(order)
        elif self.stills:
            for chosen in order.to(self.device).split(self.batch_size):
                yield Batch(self.on_device[chosen], None, self.targets[chosen])
        else:
            starts = np.cumsum(self.lengths) - self.lengths  # in `on_device`
            for chosen in order.split(self.batch_size):
                yield self._clips(chosen, starts[chosen.numpy()])

    def _clips(self, chosen: Tensor, starts: np.ndarray) -> Batch:
        """Resident examples of unlike length, padded with zeros: (B, T, H, W, C)."""
        lengths = torch.from_numpy(self.lengths[chosen.numpy()])
        steps = torch.arange(int(lengths.max()))
        within = steps < lengths[:, None]  # B T
        places = (torch.from_numpy(starts)[:, None] + steps).where(within, 0)
        frames = self.on_device[places.to(self.device)]
        frames = frames * within.to(self.device)[:, :, None, None, None]
        return Batch(frames, lengths.to(self.device), self.targets[chosen.to(self.device)])

    def _streamed(self, order: Tensor) -> Iterator[Batch]:
        """The next batch is read while the current one is computed with; two batches are in memory at a time."""
        batches = order.split(self.batch_size)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as reader:
            upcoming = reader.submit(self._read, batches[0])
            for position, chosen in enumerate(batches):
                inputs = upcoming.result()
                if position + 1 < len(batches):
                    upcoming = reader.submit(self._read, batches[position + 1])
                lengths = None if self.stills else torch.from_numpy(self.lengths[chosen.numpy()]).to(self.device)
                targets = self.targets[chosen.to(self.device)]
                yield Batch(inputs.to(self.device, non_blocking=True), lengths, targets)

    def _read(self, chosen: Tensor) -> Tensor:
        first, lengths = self.first_frames[chosen.numpy()], self.lengths[chosen.numpy()]
        if self.stills:
            inputs = torch.from_numpy(np.ascontiguousarray(self.frames[first]))
        else:
            padded = np.zeros((len(chosen), lengths.max(), *self.frames.shape[1:]), np.uint8)
            for clip, start, length in zip(padded, first, lengths, strict=True):
                clip[:length] = self.frames[start : start + length]
            inputs = torch.from_numpy(padded)
        return inputs.pin_memory() if self.device.type == "cuda" else inputs


def _frame_numbers(first_frames: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Of all frames of the examples, one example after another."""
    starts = np.cumsum(lengths) - lengths
    numbers: np.ndarray = np.repeat(first_frames - starts, lengths) + np.arange(lengths.sum())
    return numbers
