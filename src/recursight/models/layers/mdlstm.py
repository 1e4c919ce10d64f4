"""Multi-dimensional LSTM (Graves, Fernández & Schmidhuber, 2007, arXiv:0705.2011, sec. 3), without peepholes."""

from recursight.models.layers.grid_recurrence import GridRecurrence


class MDLSTM(GridRecurrence):
    """c[i,j] = i g + f c[i,j-1] + f' c[i-1,j];  h[i,j] = o tanh(c[i,j]): a forget gate for each way in.

    i, f, f', o are σ(V x + W h[i,j-1] + W' h[i-1,j] + b), each with its own weights, and g is tanh of such a sum.
    Forget biases start at 0, so that the two gates sum to about 1: open gates would double the cell at each pixel.
    """

    gates = 5
    states = ("h", "c")
