"""Layers whose weights are those of torch.nn's own: the same names, shapes and meaning."""

from typing import ClassVar

from torch import Tensor, nn

from recursight.models.kernels import operators
from recursight.models.layers.recurrence import Recurrence, State, glorot, orthogonal


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

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        outputs, carried = operators.sequence(
            self.kernel,
            inputs,
            self._weight("weight_ih_l0"),
            self._weight("bias_ih_l0"),
            from_state=self._weight("weight_hh_l0"),
            state_bias=self._weight("bias_hh_l0"),
            state=state,
            hidden=self.hidden,
        )
        return outputs, (outputs[:, -1], *carried)

    @property
    def kernel(self) -> str:
        """Its cell's name in `kernels`."""
        return type(self).__name__.lower()

    def _weight(self, name: str) -> Tensor:
        return self.rnn.get_parameter(name)
