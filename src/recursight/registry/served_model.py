"""What answers for a registered model.

MLflow copies this file into the model and runs it from there: whoever serves the model needs MLflow and torch only. The
network is a torch.export programme; nothing in the model is pickled. Where recursight is installed, its native kernels
run the programme's recurrences, else plain torch does, slower.
"""

import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

BATCH = 1024  # images at once, so that a large request needs no more memory than a middling one


class ImageClassifier(PythonModel):
    """Raw uint8 images (N, H, W, C) to one row each: class, probability, and the probabilities of all classes."""

    # MLflow would take annotations of `predict` for a schema of its own, which has no arrays, and asks for them.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        self.classes = json.loads(Path(context.artifacts["about"]).read_text(encoding="utf-8"))["classes"]
        define_operators(Path(context.artifacts["operators"]))
        self.network = load_programme(Path(context.artifacts["network"]))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        images = np.ascontiguousarray(model_input, dtype=np.uint8)
        rows = [row for start in range(0, len(images), BATCH) for row in self._answers(images[start : start + BATCH])]
        return pd.DataFrame(rows, columns=["class", "probability", "probabilities"])

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Without the table around them: float64 (N, K) in the order of `classes`, of uint8 images (N, H, W, C)."""
        with torch.inference_mode():
            answer: np.ndarray = self.network(torch.from_numpy(images)).double().numpy()
        return answer

    def _answers(self, images: np.ndarray) -> list[dict[str, Any]]:
        return [
            {
                "class": self.classes[row.argmax()],
                "probability": float(row.max()),
                "probabilities": dict(zip(self.classes, row.tolist(), strict=True)),
            }
            for row in self.probabilities(images)
        ]


def define_operators(plain: Path) -> None:
    """Makes the recurrent operators of programmes known to torch.

    Args:
        plain: Python file that defines them in plain torch, for where recursight is not installed.
    """
    try:
        from recursight.models.kernels import build, operators  # noqa: F401
    except ImportError:
        if not hasattr(torch.ops.recursight, "sequence"):
            specification = importlib.util.spec_from_file_location("recursight_operators", plain)
            module = importlib.util.module_from_spec(specification)  # type: ignore[arg-type]
            specification.loader.exec_module(module)  # type: ignore[union-attr]
            LIBRARIES.append(module.define())
    else:
        build.library()  # compiled now, and not by the first request


LIBRARIES: list[torch.library.Library] = []  # an operator lasts as long as its library


def load_programme(path: Path) -> Any:
    """Loads a torch.export programme, unless it holds a pickle: torch would run the code in it.

    Raises:
        ValueError: if it holds one.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            folder, _, name = entry.filename.partition("/data/")[2].partition("/")
            sample = folder == "sample_inputs" and entry.file_size > 0
            foreign = folder == "constants" and not name.startswith(("tensor_", "model_constants_config"))
            flagged = name.endswith("_config.json") and b'"use_pickle": true' in archive.read(entry)
            if sample or foreign or flagged:
                raise ValueError(f"{path.name}: {entry.filename} is pickled; such a model is not loaded.")
    return torch.export.load(path).module()


set_model(ImageClassifier())
