"""One optimizer step on one batch; on CUDA captured once as a graph and replayed, launch by launch, by the device.

A recurrence over hundreds of steps launches thousands of small kernels, which Python cannot do as fast as a GPU ends
them (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from recursight.models.clips import ClipNetwork
from recursight.models.packed import Part
from recursight.tasks import Batch

WARM_UP = 3
"""Batches before the capture: they make the optimizer's state and choose the libraries' algorithms."""

Work = Callable[[], None]
Loss = Callable[[Tensor, Batch], Tensor]
Curves = Callable[[Tensor, Batch], Mapping[str, Tensor]]

_log = logging.getLogger("recursight.training")


class Step:
    """Forward pass, loss, backward pass, clipping, update. Results stay on the device, so that nothing waits for it.

    Args:
        model: inputs to outputs, in training mode when a step is taken.
        optimizer: over the model's parameters.
        loss: from outputs and batch, one value an example.
        curves: from outputs and batch, further values an example, by name.
        clip_norm: largest norm of the gradient (Pascanu et al., 2013, arXiv:1211.5063); 0 for none.

    Attributes:
        loss: mean over the latest batch.
        norm: of its gradient, before clipping.
        totals: sums of the curves' values so far, by name; the reader sets them to zero.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, loss: Loss, curves: Curves, clip_norm: float
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.device = next(model.parameters()).device
        self.loss, self.norm = torch.zeros(2, device=self.device)
        self.totals: dict[str, Tensor] = {}
        self._loss, self._curves, self._limit = loss, curves, clip_norm or float("inf")

    def __call__(self, batch: Batch, learning_rate: float) -> None:
        """Runs one optimizer step."""
        self._set(learning_rate)
        self._take(batch)

    def _set(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate

    def _take(self, batch: Batch) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            outputs = self.model(*batch.arguments)
            loss = self._loss(outputs, batch).mean()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._update(batch, outputs, loss.detach())

    def _update(self, batch: Batch, outputs: Tensor, loss: Tensor) -> None:
        """Moves the weights by the gradients."""
        self.norm.copy_(nn.utils.clip_grad_norm_(self.model.parameters(), self._limit))
        self.optimizer.step()
        self.loss.copy_(loss)
        with torch.no_grad():
            add_to(self.totals, self._curves(outputs, batch))


def add_to(totals: dict[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Adds the sums of a batch's values, without waiting for the device."""
    for name, value in values.items():
        total = value.sum()
        if name in totals:
            totals[name] += total
        else:
            totals[name] = total


def capture(work: Work) -> Work:
    """Records what the work launches, without running it; the result launches all of it again.

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

    Other shapes, such as that of an epoch's last batch, are computed eagerly; so is everything, if the model does what
    cannot be recorded, such as to wait for a value.

    Args:
        record: takes the work of a step on fixed tensors, and returns what does that work again.
        further: as of `Step`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        record: Callable[[Work], Work] = capture,
        loss: Loss,
        curves: Curves,
        clip_norm: float,
    ) -> None:
        super().__init__(model, optimizer, loss=loss, curves=curves, clip_norm=clip_norm)
        self._record = record
        self._replay: Work | None = None
        self._batches = 0
        self._fixed: Batch | None = None

    def __call__(self, batch: Batch, learning_rate: float) -> None:
        self._set(learning_rate)
        if self._fixed is None:
            self._fixed = replace(batch, **{name: torch.empty_like(value) for name, value in tensors(batch).items()})
        if not _alike(batch, self._fixed):
            self._take(batch)
            return
        self._batches += 1
        if self._batches == WARM_UP + 1:
            self._replay = self._recorded(self._fixed)
        if self._replay is None:
            self._take(batch)
            return
        for name, value in tensors(self._fixed).items():
            value.copy_(getattr(batch, name))
        self._replay()

    def _recorded(self, fixed: Batch) -> Work | None:
        try:
            return self._record(lambda: self._take(fixed))
        except RuntimeError as error:
            _log.warning("training goes on without a CUDA graph: %s", " ".join(str(error).split())[:200])
            return None


class TruncatedStep(Step):
    """Truncated back-propagation through time (Williams & Peng, 1990): clips are read in parts of so many frames.

    The backward pass follows each part, so that memory bears one part only; the state goes on into the next one without
    its history. The loss is the same as without, and weights move once, after all parts.

    Args:
        truncate: frames of a part.
        further: as of `Step`; the loss of a network that answers per frame is a mean over each clip's frames.
    """

    model: ClipNetwork

    def __init__(self, model: ClipNetwork, optimizer: torch.optim.Optimizer, *, truncate: int, **further: Any) -> None:
        super().__init__(model, optimizer, **further)
        self.truncate = truncate

    def _take(self, batch: Batch) -> None:
        assert batch.lengths is not None
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        whole: Tensor | None = None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            for part, outputs in self.model.in_parts(batch.inputs, batch.lengths, self.truncate):
                loss = self._loss_of(part, outputs, batch)
                if loss is not None:
                    torch.autograd.backward(loss)
                    total += loss.detach()
                if whole is None:
                    whole = outputs.new_empty(len(batch.targets), outputs.shape[-1])
                whole[self.model.rows(part)] = outputs.detach()
        assert whole is not None
        self._update(batch, whole, total)

    def _loss_of(self, part: Part, outputs: Tensor, batch: Batch) -> Tensor | None:
        """The part's share of the batch's loss; None if it has none, as no clip ends in it that has one answer."""
        assert batch.lengths is not None
        shares = part.lengths / batch.lengths[part.examples]
        if not self.model.every:
            if not part.ended.any():
                return None
            outputs, shares = outputs[part.ended], torch.ones(int(part.ended.sum()))
            part = part._replace(examples=part.examples[part.ended])
        answered = Batch(batch.inputs, part.lengths, batch.targets[self.model.rows(part)])
        return (self._loss(outputs, answered) * shares.to(self.device)).sum() / len(batch.lengths)


def tensors(batch: Batch) -> dict[str, Tensor]:
    """What a batch holds, by name; without the lengths of stills."""
    return {name: value for name, value in vars(batch).items() if value is not None}


def _alike(one: Batch, other: Batch) -> bool:
    """Whether all tensors have the same shape and type."""
    kinds = [{name: (value.shape, value.dtype) for name, value in tensors(batch).items()} for batch in (one, other)]
    return kinds[0] == kinds[1]


def make_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    loss: Loss,
    curves: Curves,
    clip_norm: float,
    truncate: int = 0,
) -> Step:
    """The fastest kind for the model's device and the optimizer, whose rate must be on the device to be replayed.

    Clips have a new shape in each batch, which cannot be replayed; `truncate` is of `TruncatedStep`, 0 for none.
    """
    settings: dict[str, Any] = {"loss": loss, "curves": curves, "clip_norm": clip_norm}
    if isinstance(model, ClipNetwork):
        return (
            TruncatedStep(model, optimizer, truncate=truncate, **settings)
            if truncate
            else Step(model, optimizer, **settings)
        )
    on_device = all(isinstance(group["lr"], Tensor) for group in optimizer.param_groups)
    replayed = on_device and next(model.parameters()).device.type == "cuda"
    return (ReplayedStep if replayed else Step)(model, optimizer, **settings)
