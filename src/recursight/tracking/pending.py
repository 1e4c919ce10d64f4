"""Copies of results that could not be sent yet: stages overwrite their results when parameters change."""

import shutil
from pathlib import Path

from recursight.files import replacing
from recursight.layout import Layout
from recursight.tracking.results import LIGHT_FILES, Result, result_in


def keep(layout: Layout, result: Result) -> None:
    """Copies a result without its weights, unless it is copied already."""
    copied = result_in(_folder(layout) / result.digest / "bundle", _folder(layout) / result.digest / "evaluation")
    if copied and copied.evaluation_digest == result.evaluation_digest:
        return
    with replacing(_folder(layout) / result.digest) as copy:
        (copy / "bundle").mkdir(parents=True)
        for name in LIGHT_FILES:
            if (result.bundle / name).is_file():
                shutil.copy(result.bundle / name, copy / "bundle")
        if result.evaluation:
            shutil.copytree(result.evaluation, copy / "evaluation")


def kept(layout: Layout) -> list[Result]:
    found = (result_in(copy / "bundle", copy / "evaluation") for copy in sorted(_folder(layout).glob("[!.]*")))
    return [result for result in found if result is not None]


def forget(layout: Layout, result: Result) -> None:
    """Removes the copy of a result that was sent."""
    shutil.rmtree(_folder(layout) / result.digest, ignore_errors=True)


def _folder(layout: Layout) -> Path:
    return layout.state / "tracking" / "pending"
