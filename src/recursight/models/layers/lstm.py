"""Long short-term memory (Hochreiter & Schmidhuber, 1997; with the forget gate of Gers et al., 2000)."""

from torch import nn

from recursight.models.layers.torch_recurrence import TorchRecurrence


class LSTM(TorchRecurrence):
    """i, f, o, g = V x[t] + W h[t-1] + b;  c[t] = σ(f) c[t-1] + σ(i) tanh(g);  h[t] = σ(o) tanh(c[t]).

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
        forget_bias: where the forget gate's bias starts; 1 keeps memories at first (Jozefowicz et al., 2015).
    """

    gates = 4
    states = ("h", "c")

    def __init__(self, features: int, hidden: int, *, forget_bias: float = 1.0) -> None:
        super().__init__(features, hidden, nn.LSTM(features, hidden, batch_first=True))
        nn.init.constant_(self.rnn.get_parameter("bias_ih_l0").data[hidden : 2 * hidden], forget_bias)
