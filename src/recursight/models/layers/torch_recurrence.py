"""Layers whose weights are those of torch.nn's own: the same names, shapes and meaning.

On the CPU the native kernels run them, elsewhere torch.nn, with cuDNN on CUDA.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from recursight.models.kernels import native
from recursight.models.layers.recurrence import Recurrence, glorot, orthogonal


class TorchRecurrence(Recurrence):
    """A recurrence around a one-layer `torch.nn.RNNBase`.

    Weights start as in Keras: input weights Glorot-uniform, state weights orthogonal, each gate by itself; biases zero.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
        rnn: the torch module, batch first.
    """

    gates: ClassVar[int]

    def __init__(self, features: int, hidden: int, rnn: nn.RNNBase) -> None:
        super().__init__(features, hidden)
        self.rnn = rnn
        glorot(self._weight("weight_ih_l0"), self.gates)
        orthogonal(self._weight("weight_hh_l0"), self.gates)
        nn.init.zeros_(self._weight("bias_ih_l0"))
        nn.init.zeros_(self._weight("bias_hh_l0"))

    def forward(self, steps: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return self._exported(steps)
        if native.usable(steps):
            return native.sequence(
                self.kernel,
                steps,
                self._weight("weight_ih_l0"),
                self.biases(),
                from_state=self._weight("weight_hh_l0"),
                hidden=self.hidden,
            )
        states: Tensor = self.rnn(steps)[0]
        return states

    @property
    def kernel(self) -> str:
        """The native kernel's name."""
        return type(self).__name__.lower()

    def biases(self) -> Tensor:
        """What is added to each block of products, as the kernel wants it."""
        return self._weight("bias_ih_l0") + self._weight("bias_hh_l0")

    def _exported(self, steps: Tensor) -> Tensor:
        """The operator below the module: an exported program may not assign attributes, as the module does."""
        start = [part.unsqueeze(0) for part in self.initial_state(steps)]
        weights = [self._weight(name) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]
        operator = getattr(torch, self.rnn.mode.lower())  # gru, lstm, rnn_tanh, rnn_relu
        states: Tensor = operator(
            steps, start if len(start) > 1 else start[0], weights, True, 1, 0.0, False, False, True
        )[0]
        return states

    def products(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """V x + b and W h + b' of all gates side by side, each (B, gates · H)."""
        return (
            nn.functional.linear(x, self._weight("weight_ih_l0"), self._weight("bias_ih_l0")),
            nn.functional.linear(h, self._weight("weight_hh_l0"), self._weight("bias_hh_l0")),
        )

    def _weight(self, name: str) -> Tensor:
        return self.rnn.get_parameter(name)
