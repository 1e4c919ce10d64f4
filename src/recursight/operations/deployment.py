"""The steps that prefect.yaml runs: on deploying, and before each run of a deployment."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from recursight.layout import Layout
from recursight.params import load


def this_project() -> dict[str, Any]:
    """Runs on deployment: returns the folder of this clone, and the schedules of its params.yaml by section.

    Raises:
        InputError: if params.yaml is invalid.
    """
    layout = Layout.find()
    params = load(layout.params)
    schedules = {section: getattr(params, section).model_dump() for section in ("retrain", "monitor")}
    return {"root": str(layout.root), **schedules}


def take_new_commits() -> None:
    """Runs before each run: merges new commits of the upstream branch, see `operations.upstream`.

    This happens in a separate process, since this one must import the project's code only afterwards.
    """
    subprocess.run([sys.executable, "-m", "recursight.operations.upstream"], cwd=Path.cwd(), check=False)
