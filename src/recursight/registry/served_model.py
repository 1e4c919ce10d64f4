"""The code in a registered model, for MLflow's own server.

MLflow copies this file into the model and runs it from there, with MLflow and torch alone, so it imports nothing of
recursight. With it come `program.py`, the task's file that formats answers, and the recurrent operators in plain
torch; if recursight is installed, its native kernels run instead. recursight itself never runs these copies.
"""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class ServedModel(PythonModel):
    """Turns raw uint8 images (N, H, W, C) into a table of readable answers, one row per image."""

    # MLflow derives a schema from annotations of `predict`, but its schemas have no arrays; without, it warns.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        files = {name: Path(path) for name, path in context.artifacts.items()}
        self.vocabulary = json.loads(files["about"].read_text(encoding="utf-8"))["vocabulary"]
        self.rendering = _module(files["rendering"])
        self.program = _module(files["program"]).LoadedProgram(files["network"], files["operators"])

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        answers = self.program(np.asarray(model_input))
        return pd.DataFrame(self.rendering.present(answers, self.vocabulary))


def _module(path: Path) -> ModuleType:
    """Loads a file without adding it to sys.modules, so that several versions in one process keep their own code."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


set_model(ServedModel())
