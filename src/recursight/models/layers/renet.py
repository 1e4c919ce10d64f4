"""ReNet (Visin et al., 2015, arXiv:1505.00393, eqs. 1-4)."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from recursight.models.layers import sweeps
from recursight.models.layers.recurrence import Bidirectional, Layer, State
from recursight.models.layers.sweeps import along_columns, along_rows


class ReNet(Layer):
    """Sweeps each column down and up, then each row of what that gave right and left: every state sees the whole image.

    Reads patches in the paper: scan `patch-grid`, or stem `patches`.

    Args:
        features: size D of one patch.
        hidden: size H of each sweep's state; what it gives has 2·H.
        cell: the recurrence that sweeps.
    """

    grid = True
    gives_grid = True
    causal = False

    def __init__(
        self, features: int, hidden: int, *, cell: Literal["elman", "lstm", "gru", "mingru", "minlstm"] = "gru"
    ) -> None:
        super().__init__(features, hidden)
        self.vertical = _both(cell, features, hidden)
        self.horizontal = _both(cell, 2 * hidden, hidden)

    @property
    def width(self) -> int:
        return 2 * self.hidden

    def finals(self, sizes: Sequence[int]) -> list[int]:
        """Rows are read to the right and to the left; at their ends, at the last row and the first."""
        return self.horizontal.finals(sizes)

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        self.refuse(state)
        return along_rows(self.horizontal, along_columns(self.vertical, inputs)), ()


def _both(name: str, features: int, hidden: int) -> Bidirectional:
    return Bidirectional(*(sweeps.cell(name, features, hidden) for _ in range(2)))
