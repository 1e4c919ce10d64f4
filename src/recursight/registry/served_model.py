"""The code of a registered model.

MLflow copies this file into the model and runs it from there: serving a model takes MLflow and torch only. More files
come with it: `program.py`, the task's file that makes answers readable, and the recurrent operators in plain torch,
which run where recursight and its native kernels are not installed.
"""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
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
        define_operators(files["operators"])
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


def define_operators(plain: Path) -> None:
    """Makes the recurrent operators of programs known to torch.

    Args:
        plain: Python file that defines them in plain torch, for where recursight is not installed.
    """
    try:
        from recursight.models.kernels import build, operators  # noqa: F401
    except ImportError:
        if not hasattr(torch.ops.recursight, "sequence"):
            LIBRARIES.append(_module(plain).define())
    else:
        build.library()  # compiled now, and not by the first request


LIBRARIES: list[torch.library.Library] = []  # an operator lasts as long as its library


set_model(ServedModel())
