"""Batches: shuffled and seeded, from the device's memory where the data set fits, else streamed from disk."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from recursight.tasks import Batch
from recursight.training.devices import free_bytes
from recursight.training.windows import frame_numbers

POOL = 16  # batches whose clips are sorted by length together


class Batches:
    """The examples of one split, in batches on the device.

    Args:
        frames: uint8, F H W C, of all examples one after another; a memory map is read as little as possible.
        first_frames: of the examples of this split, N.
        lengths: frames of each, N. Examples may share frames.
        targets: of each, (N, ...); or of each frame of each example, packed.
        per_frame: whether targets are those of frames.
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
        per_frame: bool = False,
        batch_size: int,
        device: torch.device,
        memory_fraction: float,
    ) -> None:
        self.frames = frames
        self.first_frames, self.lengths = first_frames, lengths
        self.per_frame = per_frame
        self.batch_size = batch_size
        self.device = device
        self.stills = bool((lengths == 1).all()) and not per_frame
        self.targets = torch.from_numpy(targets).to(device)
        self.target_starts = np.cumsum(lengths) - lengths
        wanted = np.unique(frame_numbers(first_frames, lengths))
        self.resident = len(wanted) * int(np.prod(frames.shape[1:])) <= memory_fraction * free_bytes(device)
        if self.resident:
            self.on_device = torch.from_numpy(np.ascontiguousarray(frames[wanted])).to(device)  # F H W C
            self.resident_starts = np.searchsorted(wanted, first_frames)
            self.places = torch.from_numpy(self.resident_starts).to(device)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return math.ceil(len(self.lengths) / self.batch_size)

    @property
    def count(self) -> int:
        """Examples in an epoch."""
        return len(self.lengths)

    @property
    def frame_count(self) -> int:
        """Frames in an epoch, those of overlapping examples once for each."""
        return int(self.lengths.sum())

    def shuffled(self, seed: int) -> Iterator[Batch]:
        """One epoch in an order that the seed alone decides; clips of similar length are in one batch."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.count, generator=generator)
        if self.stills:
            return self._epoch(list(order.split(self.batch_size)))
        lengths = torch.tensor(self.lengths)
        pools = [pool[lengths[pool].argsort(stable=True)] for pool in order.split(POOL * self.batch_size)]
        batches = [batch for pool in pools for batch in pool.split(self.batch_size)]
        return self._epoch([batches[index] for index in torch.randperm(len(batches), generator=generator)])

    def in_order(self) -> Iterator[Batch]:
        """One epoch in the order of the rows."""
        return self._epoch(list(torch.arange(self.count).split(self.batch_size)))

    def _epoch(self, batches: list[Tensor]) -> Iterator[Batch]:
        if self.resident and self.stills:  # the order is copied once: a copy for each batch would wait for the device
            for chosen in torch.cat(batches).to(self.device).split(self.batch_size):
                yield Batch(self.on_device[self.places[chosen]], None, self.targets[chosen])
        elif self.resident:
            for chosen in batches:
                yield self._batch(chosen, self._resident(chosen))
        else:
            yield from self._streamed(batches)

    def _streamed(self, batches: list[Tensor]) -> Iterator[Batch]:
        """The next batch is read while the current one is computed with; two batches are in memory at a time."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as reader:
            upcoming = reader.submit(self._read, batches[0])
            for position, chosen in enumerate(batches):
                inputs = upcoming.result()
                if position + 1 < len(batches):
                    upcoming = reader.submit(self._read, batches[position + 1])
                yield self._batch(chosen, inputs.to(self.device, non_blocking=True))

    def _batch(self, chosen: Tensor, inputs: Tensor) -> Batch:
        if self.stills:
            return Batch(inputs, None, self.targets[chosen.to(self.device)])
        lengths = self.lengths[chosen.numpy()]
        numbers = frame_numbers(self.target_starts[chosen.numpy()], lengths) if self.per_frame else chosen.numpy()
        targets = self.targets[torch.from_numpy(numbers).to(self.device)]
        return Batch(inputs, torch.from_numpy(lengths), targets)

    def _resident(self, chosen: Tensor) -> Tensor:
        starts, lengths = self.resident_starts[chosen.numpy()], self.lengths[chosen.numpy()]
        return self.on_device[torch.from_numpy(frame_numbers(starts, lengths)).to(self.device)]

    def _read(self, chosen: Tensor) -> Tensor:
        first, lengths = self.first_frames[chosen.numpy()], self.lengths[chosen.numpy()]
        if self.stills:
            inputs = torch.from_numpy(np.ascontiguousarray(self.frames[first]))
        else:
            parts = [self.frames[start : start + length] for start, length in zip(first, lengths, strict=True)]
            inputs = torch.from_numpy(np.concatenate(parts))
        return inputs.pin_memory() if self.device.type == "cuda" else inputs
