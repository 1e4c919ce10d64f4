"""Two-dimensional RNN (Graves, Fernández & Schmidhuber, 2007, arXiv:0705.2011, eq. 1)."""

import torch
from torch import Tensor

from recursight.models.layers.grid_recurrence import GridRecurrence
from recursight.models.layers.recurrence import State


class RNN2D(GridRecurrence):
    """h[i,j] = tanh(W h[i,j-1] + W' h[i-1,j] + V x[i,j] + b): each pixel sees all above and to the left of it."""

    gates = 1

    def cell(self, products: Tensor, left: State, above: State) -> State:
        return (torch.tanh(products),)
