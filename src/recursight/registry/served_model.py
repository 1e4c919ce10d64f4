"""The code of a registered model.

MLflow copies this file into the model and runs it from there, so it imports nothing of recursight: serving a model
takes MLflow and torch only. Two more files come with it: `program.py`, and the task's file that makes answers readable.
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
    """Raw uint8 images (N, H, W, C) to a table of readable answers, one row each."""

    # MLflow would take annotations of `predict` for a schema of its own, which has no arrays, and asks for them.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        files = {name: Path(path) for name, path in context.artifacts.items()}
        self.vocabulary = json.loads(files["about"].read_text(encoding="utf-8"))["vocabulary"]
        self.rendering = _module(files["rendering"])
        self.program = _module(files["program"]).LoadedProgram(files["network"])

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        answers = self.program(np.asarray(model_input))
        return pd.DataFrame(self.rendering.present(answers, self.vocabulary))


def _module(path: Path) -> ModuleType:
    """Loads a file without its name going into sys.modules: each version in a process keeps its own code."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


set_model(ServedModel())
