"""Where a stage of dvc.yaml runs: one executor per place."""

from recursight.executors.contract import Executor, StageFailed, StageRefused
from recursight.executors.local import LocalExecutor

EXECUTORS: dict[str, Executor] = {
    "local": LocalExecutor(),
}

__all__ = ["EXECUTORS", "Executor", "StageFailed", "StageRefused"]
