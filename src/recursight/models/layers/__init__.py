"""Recurrent layers, one file per family. Adding one is two edits: its file, and its row here."""

from recursight.models.layers.average import Average
from recursight.models.layers.conv_gru2d import ConvGRU2D
from recursight.models.layers.conv_lstm import ConvLSTM
from recursight.models.layers.elman import Elman
from recursight.models.layers.gru import GRU
from recursight.models.layers.hierarchical import Hierarchical
from recursight.models.layers.indrnn import IndRNN
from recursight.models.layers.lru import LRU
from recursight.models.layers.lstm import LSTM
from recursight.models.layers.mdlstm import MDLSTM
from recursight.models.layers.mingru import MinGRU
from recursight.models.layers.minlstm import MinLSTM
from recursight.models.layers.qrnn import QRNN
from recursight.models.layers.recurrence import Layer
from recursight.models.layers.renet import ReNet
from recursight.models.layers.rnn2d import RNN2D
from recursight.models.layers.sequencer import Sequencer
from recursight.models.layers.slstm import SLSTM
from recursight.models.layers.sru import SRU

LAYERS: dict[str, type[Layer]] = {
    "elman": Elman,
    "lstm": LSTM,
    "gru": GRU,
    "indrnn": IndRNN,
    "mingru": MinGRU,
    "minlstm": MinLSTM,
    "sru": SRU,
    "qrnn": QRNN,
    "lru": LRU,
    "slstm": SLSTM,
    "rnn2d": RNN2D,
    "mdlstm": MDLSTM,
    "renet": ReNet,
    "hierarchical": Hierarchical,
    "sequencer": Sequencer,
}

OVER_TIME_LAYERS: dict[str, type[Layer]] = {
    "average": Average,
    "conv_lstm": ConvLSTM,
    "conv_gru2d": ConvGRU2D,
}
"""Further ones for clips: they read vectors of frames, or their maps."""
