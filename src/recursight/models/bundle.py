"""The bundle: a trained candidate as files, whatever its architecture.

A folder: `model.safetensors` (weights), `card.json` (what is needed to rebuild and judge it; the same for two equal
trainings), `training.json` (what differs between two equal trainings: times, machine), `history.csv` (one row per
epoch) and `gradient_norms.csv` (the norm of the loss's gradient for each state over time). Nothing is pickled.

Reading a card alone imports no torch.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recursight.errors import InputError
from recursight.files import digest, read_json, write_json

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "model.safetensors"
CARD = "card.json"


@dataclass(frozen=True)
class Card:
    """What a bundle's weights are.

    Attributes:
        candidate: its name in params.yaml.
        seed: of initialisation, order of images, augmentation and dropout.
        task: its name in `TASKS`, and its options.
        architecture: arguments of `assemble`, all but the shapes.
        vocabulary: of the task: classes or words, in the order of the network's outputs.
        outputs: width of the network's output layer.
        input_shape: H, W, C of the raw uint8 images or frames it takes.
        mean: subtracted from each channel on the scale 0 to 1.
        std: divides each channel after that.
        training: the settings it was trained with.
        training_digest: SHA-256 of parameters, data, code and seed: equal for equal trainings.
        data_digest: digest of the store it was trained on.
        weights_digest: SHA-256 of model.safetensors.
        parameters: number of trainable values.
        best_epoch: the epoch whose weights these are, counted from 1.
        frames: the median length of the training clips; 1 of stills.
        rate: frames per second of the clips; 0 of stills.
    """

    candidate: str
    seed: int
    task: dict[str, Any]
    architecture: dict[str, Any]
    vocabulary: list[str]
    outputs: int
    input_shape: list[int]
    mean: list[float]
    std: list[float]
    training: dict[str, Any]
    training_digest: str
    data_digest: str
    weights_digest: str
    parameters: int
    best_epoch: int
    frames: int = 1
    rate: float = 0.0

    @property
    def digest(self) -> str:
        """Names the bundle: equal only for equal weights, architecture and data."""
        return digest(asdict(self))


def save_bundle(folder: Path, model: "nn.Module", **card: Any) -> Card:
    """Writes weights and card; `card` has every field of `Card` but weights_digest and parameters."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    (folder / WEIGHTS).write_bytes(weights)
    complete = Card(
        weights_digest=hashlib.sha256(weights).hexdigest(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        **card,
    )
    write_json(folder / CARD, asdict(complete))
    return complete


def read_card(folder: Path) -> Card:
    """Raises InputError if the folder holds no bundle."""
    try:
        return Card(**read_json(folder / CARD))
    except FileNotFoundError:
        raise InputError(f"{folder} holds no trained candidate; train it with `dvc repro`.") from None
    except TypeError:
        raise InputError(f"{folder} was trained by an earlier version of recursight; run `dvc repro`.") from None


def load_bundle(folder: Path) -> "tuple[nn.Module, Card]":
    """Rebuilds the network of `assemble`, in eval mode on the CPU.

    Raises:
        InputError: if the folder holds no bundle, or its weights are not the ones that the card names.
    """
    from safetensors.torch import load_file

    from recursight.models.assembly import assemble

    card = read_card(folder)
    path = folder / WEIGHTS
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != card.weights_digest:
        raise InputError(f"{path} is not the file that {CARD} beside it describes; restore it with `dvc checkout`.")
    model = assemble(
        card.architecture,
        input_shape=card.input_shape,
        outputs=card.outputs,
        mean=card.mean,
        std=card.std,
    )
    model.load_state_dict(load_file(path))
    return model.eval(), card
