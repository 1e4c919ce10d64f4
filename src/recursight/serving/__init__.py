"""The champion answers: from the registry to predictions, and nothing else."""

from recursight.serving.champion import Champion, Prediction, load_champion

__all__ = ["Champion", "Prediction", "load_champion"]
