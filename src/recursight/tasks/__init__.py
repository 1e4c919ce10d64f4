"""Tasks: what is asked about an example, and how an answer is scored. Nothing outside this package knows a target.

A new task is a file here and a line in `TASKS`. Modules here import torch, pandas and scikit-learn where they need
them, so that params.yaml can be checked without them.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from recursight.errors import InputError, nearest
from recursight.tasks.classification import Classification
from recursight.tasks.metric import Metric, mean_of, share_of
from recursight.tasks.task import Batch, Contender, Section, Task, Tested

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
}


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def options_of(name: str) -> dict[str, Any]:
    """Options of a task with their defaults; none of an unknown task."""
    return {field.name: field.default for field in fields(TASKS[name])} if name in TASKS else {}


def make_task(name: str, options: Mapping[str, Any]) -> Task:
    """A task by its name in `TASKS`, with its options.

    Raises:
        InputError: opening with the key that is wrong, and naming the nearest that exists.
    """
    if name not in TASKS:
        raise InputError(f"task: {name!r} is unknown; {nearest(name, TASKS)}")
    defaults = options_of(name)
    for option, value in options.items():
        if option not in defaults:
            hint = nearest(option, defaults) if defaults else "it has none."
            raise InputError(f"{option}: {name!r} has no such option; {hint}")
        wanted = type(defaults[option])
        if wanted in KINDS and type(value) not in ((float, int) if wanted is float else (wanted,)):
            raise InputError(f"{option}: {value!r} is not {KINDS[wanted]}.")
    return TASKS[name](**options)


def task_of(description: Mapping[str, Any]) -> Task:
    """The task that a bundle's card or a registered version describes: its name, and its options."""
    return make_task(description["name"], {key: value for key, value in description.items() if key != "name"})


__all__ = [
    "TASKS",
    "Batch",
    "Contender",
    "Metric",
    "Section",
    "Task",
    "Tested",
    "make_task",
    "mean_of",
    "options_of",
    "share_of",
    "task_of",
]
