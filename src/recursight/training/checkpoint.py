"""Checkpoints: all that a training needs to go on after its last finished epoch, as one safetensors file."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from recursight.training.loop import Epoch

Weights = dict[str, Tensor]


@dataclass
class TrainingState:
    """How far a training has come.

    Attributes:
        history: the finished epochs.
        best_epoch: the one whose weights are kept; 0 before the first.
        best_weights: these weights, on the CPU.
        finished: `epochs` or `patience` once nothing is left to do, else empty.
    """

    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: Weights = field(default_factory=dict)
    finished: str = ""


def save_checkpoint(
    path: Path, key: str, reached: TrainingState, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Replaces the file in one rename; a kill leaves the one before it."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in reached.best_weights.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items() if isinstance(value, Tensor)}
    account = {
        "history": [asdict(epoch) for epoch in reached.history],
        "best_epoch": reached.best_epoch,
        "finished": reached.finished,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, temporary, metadata={"key": key, "account": json.dumps(account)})
    temporary.replace(path)


def load_checkpoint(path: Path, key: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
    """Restores model and optimizer in place, if the file is a checkpoint of this very training.

    Args:
        path: of the checkpoint, which need not exist.
        key: digest of parameters, data, code and seed; a file with another key is left alone.
        model: gets its weights.
        optimizer: gets its state.

    Returns:
        The state that was saved, or an empty one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if metadata.get("key") != key:
                return TrainingState()
            groups: dict[str, Weights] = {"model": {}, "best": {}, "optimizer": {}}
            for name in file.keys():  # noqa: SIM118 - not a dict
                group, _, rest = name.partition("/")
                groups[group][rest] = file.get_tensor(name)
    except (FileNotFoundError, SafetensorError):  # none yet, or cut off by a power failure
        return TrainingState()
    model.load_state_dict(groups["model"])
    state: dict[int, dict[str, Any]] = {}
    for name, value in groups["optimizer"].items():
        index, _, rest = name.partition("/")
        state.setdefault(int(index), {})[rest] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    account = json.loads(metadata["account"])
    history = [Epoch(**epoch) for epoch in account["history"]]
    return TrainingState(history, account["best_epoch"], groups["best"], account["finished"])
