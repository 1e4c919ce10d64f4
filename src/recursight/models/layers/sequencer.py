"""Sequencer (Tatsunami & Taki, 2022, arXiv:2205.01972, eqs. 1-5 and fig. 2)."""

import torch
from torch import Tensor, nn

from recursight.models.layers.lstm import LSTM
from recursight.models.layers.recurrence import Bidirectional, Layer, State
from recursight.models.layers.sweeps import along_columns, along_rows


class Sequencer(Layer):
    """y = x + P [BiLSTM over the columns of N(x), BiLSTM over its rows];  out = y + MLP(N'(y)), N a layer norm.

    Reads embedded patches: stem `patches`. Where D ≠ H, x is first a product, W x.

    Args:
        features: size D of one patch.
        hidden: size H of the block; each of the four sweeps has a quarter of it.
        expansion: of the MLP's inner layer.
    """

    grid = True
    gives_grid = True
    causal = False

    def __init__(self, features: int, hidden: int, *, expansion: int = 3) -> None:
        if expansion < 1:
            raise ValueError(f"expansion must be at least 1; it is {expansion}")
        super().__init__(features, hidden)
        quarter = max(1, hidden // 4)
        self.widen = nn.Identity() if features == hidden else nn.Linear(features, hidden)
        self.before_sweeps, self.before_mlp = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.vertical = Bidirectional(LSTM(hidden, quarter), LSTM(hidden, quarter))
        self.horizontal = Bidirectional(LSTM(hidden, quarter), LSTM(hidden, quarter))
        self.merge = nn.Linear(4 * quarter, hidden)
        self.mlp = nn.Sequential(
            nn.Linear(hidden, expansion * hidden), nn.GELU(), nn.Linear(expansion * hidden, hidden)
        )

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        self.refuse(state)
        x = self.widen(inputs)  # B I J H
        normed = self.before_sweeps(x)
        swept = [along_columns(self.vertical, normed), along_rows(self.horizontal, normed)]
        x = x + self.merge(torch.cat(swept, dim=-1))
        return x + self.mlp(self.before_mlp(x)), ()
