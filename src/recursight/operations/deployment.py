"""The steps that prefect.yaml runs: on deploying, and before each run of a deployment."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from recursight.layout import Layout
from recursight.params import load


def this_project() -> dict[str, Any]:
    """On deploying: the folder of this very clone, and the schedules of its params.yaml, by section.

    Raises:
        InputError: if params.yaml is wrong.
    """
    layout = Layout.find()
    params = load(layout.params)
    schedules = {section: getattr(params, section).model_dump() for section in ("retrain", "monitor")}
    return {"root": str(layout.root), **schedules}


def take_new_commits() -> None:
    """Before a run: takes new commits of the followed branch, see `operations.upstream`.

    In a process of its own, since this one imports the project's code only afterwards.
    """
    subprocess.run([sys.executable, "-m", "recursight.operations.upstream"], cwd=Path.cwd(), check=False)
