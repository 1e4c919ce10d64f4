"""Two-dimensional RNN (Graves, Fernández & Schmidhuber, 2007, arXiv:0705.2011, eq. 1)."""

from recursight.models.layers.grid_recurrence import GridRecurrence


class RNN2D(GridRecurrence):
    """h[i,j] = tanh(W h[i,j-1] + W' h[i-1,j] + V x[i,j] + b): each pixel sees all above and to the left of it."""

    gates = 1
