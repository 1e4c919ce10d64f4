"""Recurrent layers, one file per family. Adding one is two edits: its file, and its row here."""

from recursight.models.layers.elman import Elman
from recursight.models.layers.gru import GRU
from recursight.models.layers.lstm import LSTM
from recursight.models.layers.recurrence import Recurrence
from recursight.models.layers.rnn2d import RNN2D

LAYERS: dict[str, type[Recurrence]] = {
    "elman": Elman,
    "lstm": LSTM,
    "gru": GRU,
    "rnn2d": RNN2D,
}
