"""One optimizer step on one batch; on CUDA captured once as a graph and replayed, launch by launch, by the device.

A recurrence over hundreds of steps launches thousands of small kernels, which Python cannot do as fast as a GPU ends
them (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WARM_UP = 3
"""Batches before the capture: they make the optimizer's state and choose the libraries' algorithms."""

Work = Callable[[], None]

_log = logging.getLogger("recursight.training")


class Step:
    """Forward, loss, backward, clipping, update. What it finds stays on the device, so that nothing waits for it.

    Args:
        model: (B, H, W, C) images to logits, in training mode when a step is taken.
        optimizer: over the model's parameters.
        clip_norm: largest norm of the gradient (Pascanu et al., 2013, arXiv:1211.5063); 0 for none.
        label_smoothing: weight spread over all classes.

    Attributes:
        loss: of the latest step.
        norm: of its gradient, before clipping.
        correct: predictions so far; whoever reads it sets it to zero.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, clip_norm: float, label_smoothing: float
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.device = next(model.parameters()).device
        self.loss, self.norm = torch.zeros(2, device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._limit, self._label_smoothing = clip_norm or float("inf"), label_smoothing

    def __call__(self, images: Tensor, labels: Tensor, learning_rate: float) -> None:
        """Takes a step, or has the device take it.

        Args:
            images: (B, H, W, C).
            labels: (B).
            learning_rate: of this step.
        """
        self._set(learning_rate)
        self._take(images, labels)

    def _set(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate

    def _take(self, images: Tensor, labels: Tensor) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.model(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self._label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.norm.copy_(nn.utils.clip_grad_norm_(self.model.parameters(), self._limit))
        self.optimizer.step()
        self.loss.copy_(loss.detach())
        self.correct += (logits.argmax(dim=-1) == labels).sum()


def capture(work: Work) -> Work:
    """Records what the work launches, without doing it; the result launches all of it again.

    Raises:
        RuntimeError: if it does what cannot be recorded.
    """
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class ReplayedStep(Step):
    """A step that is recorded after a few batches, and from then on replayed on every batch of that shape.

    Another shape, such as an epoch's last batch has, is computed as it comes; so is everything, if the model does what
    cannot be recorded, such as to wait for a value.

    Args:
        record: takes the work of a step on fixed tensors, and gives what does that work again.
        further: as of `Step`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        record: Callable[[Work], Work] = capture,
        **further: float,
    ) -> None:
        super().__init__(model, optimizer, **further)
        self._record = record
        self._replay: Work | None = None
        self._batches = 0
        self._images = self._labels = torch.empty(0)

    def __call__(self, images: Tensor, labels: Tensor, learning_rate: float) -> None:
        self._set(learning_rate)
        if not self._batches:
            self._images, self._labels = torch.empty_like(images), torch.empty_like(labels)
        if images.shape != self._images.shape or images.dtype != self._images.dtype:
            self._take(images, labels)
            return
        self._batches += 1
        if self._batches == WARM_UP + 1:
            self._replay = self._recorded()
        if self._replay is None:
            self._take(images, labels)
            return
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._replay()

    def _recorded(self) -> Work | None:
        try:
            return self._record(lambda: self._take(self._images, self._labels))
        except RuntimeError as error:
            _log.warning("training goes on without a CUDA graph: %s", " ".join(str(error).split())[:200])
            return None


def make_step(model: nn.Module, optimizer: torch.optim.Optimizer, *, clip_norm: float, label_smoothing: float) -> Step:
    """The fastest kind for the model's device and the optimizer, whose rate must be on the device to be replayed."""
    on_device = all(isinstance(group["lr"], Tensor) for group in optimizer.param_groups)
    replayed = on_device and next(model.parameters()).device.type == "cuda"
    return (ReplayedStep if replayed else Step)(model, optimizer, clip_norm=clip_norm, label_smoothing=label_smoothing)
