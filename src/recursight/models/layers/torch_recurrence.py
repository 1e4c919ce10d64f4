"""Layers whose fast form is torch.nn's own: oneDNN on Intel CPUs, cuDNN on CUDA."""

from typing import ClassVar

from torch import Tensor, nn

from recursight.models.layers.recurrence import Recurrence


class TorchRecurrence(Recurrence):
    """A recurrence around a one-layer `torch.nn.RNNBase`.

    Weights start as in Keras: input weights Glorot-uniform (Glorot & Bengio, 2010), state weights orthogonal (Saxe et
    al., 2014, arXiv:1312.6120), each gate by itself; biases zero.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
        rnn: the torch module, batch first.
    """

    gates: ClassVar[int]

    def __init__(self, features: int, hidden: int, rnn: nn.RNNBase) -> None:
        super().__init__(features, hidden)
        self.rnn = rnn
        for gate in range(self.gates):
            block = slice(gate * hidden, (gate + 1) * hidden)
            nn.init.xavier_uniform_(self._weight("weight_ih_l0").data[block])
            nn.init.orthogonal_(self._weight("weight_hh_l0").data[block])
        nn.init.zeros_(self._weight("bias_ih_l0"))
        nn.init.zeros_(self._weight("bias_hh_l0"))

    def forward(self, steps: Tensor) -> Tensor:
        states: Tensor = self.rnn(steps)[0]
        return states

    def products(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """V x + b and W h + b' of all gates side by side, each (B, gates · H)."""
        return (
            nn.functional.linear(x, self._weight("weight_ih_l0"), self._weight("bias_ih_l0")),
            nn.functional.linear(h, self._weight("weight_hh_l0"), self._weight("bias_hh_l0")),
        )

    def _weight(self, name: str) -> Tensor:
        return self.rnn.get_parameter(name)
