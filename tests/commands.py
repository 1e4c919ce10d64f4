"""`recursight` in this process, for tests of what a command says: a new process would import torch and MLflow anew.

What is tested of processes themselves (signals, locks, what stdout and stderr hold) is run as one.
"""

import io
import os
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from recursight.cli import main


def recursight(root: Path, *words: str) -> CompletedProcess[str]:
    """Gives a command in a folder, through the same entry point; environment and arguments are restored."""
    status, out, err = 0, io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, chdir(root), redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["recursight", *words])
        before = dict(os.environ)
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            os.environ.clear()
            os.environ.update(before)
    return CompletedProcess(words, status, out.getvalue(), err.getvalue())
