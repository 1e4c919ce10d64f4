"""DVC's stage graph: the stages, what they read, and which have changed."""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from recursight import commands
from recursight.errors import InputError
from recursight.files import read_json
from recursight.layout import Layout


def graph(root: Path) -> dict[str, set[str]]:
    """Returns for each stage the stages whose outputs it reads, in an order in which they can run.

    Raises:
        InputError: if dvc.yaml cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from networkx import topological_sort

    try:
        with Repo(str(root)) as repo:
            edges = repo.index.graph  # from a stage to those whose outputs it reads
            stages = [stage for stage in topological_sort(edges.reverse()) if stage.cmd]  # the others are data
            return {stage.name: {above.name for above in edges.successors(stage) if above.cmd} for stage in stages}
    except DvcException as error:
        raise InputError(f"dvc.yaml: {' '.join(str(error).split())}") from None


def changed(root: Path, stages: dict[str, set[str]]) -> set[str]:
    """The stages that have changed, and all that depend on them.

    Raises:
        InputError: if `dvc status` fails.
    """
    found = set(status(root)) & set(stages)
    for stage, reads in stages.items():  # in order, so one pass is enough
        if reads & found:
            found.add(stage)
    return found


def status(root: Path) -> dict[str, list[Any]]:
    """What has changed: for each stage and .dvc file that is not up to date, its changes, as `dvc status` reports them.

    Raises:
        InputError: if `dvc status` fails.
    """
    finished = commands.dvc(root, "status", "--json")
    if finished.returncode:
        raise InputError(f"dvc status failed: {commands.message_of(finished)}")
    changes: dict[str, list[Any]] = json.loads(finished.stdout)
    return changes


def longest_first(layout: Layout, stages: dict[str, set[str]]) -> dict[str, set[str]]:
    """The order to begin stages in, as far as what they read allows: a long training begun last is waited for alone.

    How long a candidate takes is read from its present bundles; one without any may take longest, and so comes first.
    Other stages are short: they come last, and fill the processors that become free while the last trainings end.
    """

    def seconds(stage: str) -> float:
        step, _, name = stage.partition("@")
        if step != "train":
            return 0
        accounts = list(layout.candidate(name).glob("seed-*/training.json"))
        with suppress(OSError, ValueError, KeyError, TypeError):  # a guess is no reason to fail
            return sum(float(read_json(path)["seconds"]) for path in accounts) or math.inf
        return math.inf

    return {stage: stages[stage] for stage in sorted(stages, key=seconds, reverse=True)}
