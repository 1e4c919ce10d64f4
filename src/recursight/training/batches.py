"""Batches: shuffled and seeded, from the device's memory where the data set fits, else streamed from disk."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from recursight.training.devices import free_bytes


class Batches:
    """The images and labels of one split, in batches on the device.

    Args:
        images: uint8, N T H W C with T = 1; a memory map is read as little as possible.
        rows: which of the images, and in which order when not shuffled.
        labels: of these rows, int64.
        batch_size: images in a batch; the last one of an epoch may be smaller.
        device: where batches are wanted.
        memory_fraction: the split is copied to the device if it takes at most this share of its free memory.
    """

    def __init__(
        self,
        images: np.ndarray,
        rows: np.ndarray,
        labels: np.ndarray,
        *,
        batch_size: int,
        device: torch.device,
        memory_fraction: float,
    ) -> None:
        self.images = images
        self.rows = rows
        self.batch_size = batch_size
        self.device = device
        self.labels = torch.from_numpy(labels).to(device)
        size_bytes = len(rows) * int(np.prod(images.shape[1:]))
        self.resident = size_bytes <= memory_fraction * free_bytes(device)
        if self.resident:
            self.on_device = torch.from_numpy(np.ascontiguousarray(images[rows, 0])).to(device)  # N H W C

    def __len__(self) -> int:
        """Batches in an epoch."""
        return math.ceil(len(self.rows) / self.batch_size)

    @property
    def count(self) -> int:
        """Images in an epoch."""
        return len(self.rows)

    def shuffled(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in an order that the seed alone decides."""
        return self._epoch(torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(seed)))

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in the order of the rows."""
        return self._epoch(torch.arange(len(self.rows)))

    def _epoch(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        if self.resident:
            for chosen in order.to(self.device).split(self.batch_size):
                yield self.on_device[chosen], self.labels[chosen]
        else:
            yield from self._streamed(order)

    def _streamed(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The next batch is read while the current one is computed with; two batches are in memory at a time."""
        batches = order.split(self.batch_size)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as reader:
            upcoming = reader.submit(self._read, batches[0])
            for position, chosen in enumerate(batches):
                images = upcoming.result()
                if position + 1 < len(batches):
                    upcoming = reader.submit(self._read, batches[position + 1])
                yield images.to(self.device, non_blocking=True), self.labels[chosen.to(self.device)]

    def _read(self, chosen: Tensor) -> Tensor:
        images = torch.from_numpy(np.ascontiguousarray(self.images[self.rows[chosen.numpy()], 0]))
        return images.pin_memory() if self.device.type == "cuda" else images
