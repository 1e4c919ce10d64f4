"""Reads and validates params.yaml, with one sentence per error."""

import reprlib
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from recursight.errors import InputError, nearest
from recursight.files import read_yaml
from recursight.params.experiment import Candidate, Compare, Evaluate, Execution, Prepare, Task, Train
from recursight.params.operation import Gate, Monitor, Registry, Retrain, Serve
from recursight.params.section import LONGEST_NAME, Name, Section, Seed
from recursight.tasks import Metric, make_task, options_of
from recursight.tasks import Task as BuiltTask


class Params(Section):
    """All of params.yaml."""

    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    task: Task = Task()
    prepare: Prepare = Prepare()
    train: Train = Train()
    execution: Execution = Execution()
    evaluate: Evaluate = Evaluate()
    compare: Compare = Compare()
    registry: Registry = Registry()
    gate: Gate = Gate()
    retrain: Retrain = Retrain()
    serve: Serve = Serve()
    monitor: Monitor = Monitor()
    candidates: Annotated[dict[Name, Candidate], Field(min_length=1)]

    @field_validator("seeds")
    @classmethod
    def distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("lists a seed twice")
        return seeds

    @model_validator(mode="after")
    def task_is_known(self) -> "Params":
        self.metric("compare.metric", self.compare.metric)
        self.metric("gate.metric", self.gate.metric)
        for name in self.registry.minimums:
            self.metric("registry.minimums", name)
        return self

    @cached_property
    def built_task(self) -> BuiltTask:
        """The task, with its options from the sections `task` and `evaluate`.

        Raises:
            InputError: if the task or an option of it is unknown.
        """
        given = {"task": self.task.model_extra or {}, "evaluate": self.evaluate.model_extra or {}}
        known = [*Evaluate.model_fields, *options_of(self.task.name)]
        for key in given["evaluate"]:
            if key not in known:
                raise InputError(f"params.yaml: evaluate.{key}: unknown key; {nearest(key, known)}")
        try:
            return make_task(self.task.name, given["task"] | given["evaluate"])
        except InputError as error:
            key = str(error).partition(":")[0]
            section = next((f"{section}." for section, options in given.items() if key in options), "")
            raise InputError(f"params.yaml: {section}{error}") from None

    @property
    def minimums(self) -> dict[str, float]:
        """What any champion must reach on the test split, by metric: the task's own, and those of params.yaml."""
        return {**self.built_task.minimums, **self.registry.minimums}

    def metric(self, key: str, name: str | None) -> Metric:
        """A metric of the task, by its name in params.yaml; the task's first one for None.

        Args:
            key: under which the name stands, such as `compare.metric`.
            name: of the metric.

        Raises:
            InputError: for a name that the task does not have.
        """
        metrics = self.built_task.metrics
        if name is None:
            return self.built_task.default
        if name not in metrics:
            raise InputError(f"params.yaml: {key}: {self.task.name!r} has no metric {name!r}; {nearest(name, metrics)}")
        return metrics[name]

    @model_validator(mode="after")
    def overrides_are_valid(self) -> "Params":
        for name in self.candidates:
            self.training_of(name)
        return self

    def candidate(self, name: str) -> Candidate:
        """The candidate of that name; raises InputError if there is none."""
        if name not in self.candidates:
            raise InputError(f"params.yaml: no candidate {name!r}; {nearest(name, self.candidates)}")
        return self.candidates[name]

    def training_of(self, name: str) -> Train:
        """The `train` section, overridden by the keys of the candidate."""
        override = self.candidates[name].train
        merged = self.train.model_dump() | override
        if isinstance(override.get("augment"), dict):
            merged["augment"] = self.train.augment.model_dump() | override["augment"]
        try:
            return Train.model_validate(merged)
        except ValidationError as error:
            raise InputError(_sentences(error, Train, f"candidates.{name}.train.")) from None


def load(path: Path) -> Params:
    """Reads and validates a params.yaml.

    Raises:
        InputError: listing every key that is unknown, missing or invalid.
    """
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run from a project folder.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path.name} must be a mapping of sections; it is {type(content).__name__}.")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise InputError(_sentences(error, Params)) from None


def _sentences(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """One sentence per error, starting with the path of its key."""
    lines = []
    for fault in error.errors():
        if isinstance(fault.get("ctx", {}).get("error"), InputError):  # from an override, already a sentence
            lines.append(str(fault["ctx"]["error"]))
            continue
        path = [str(part)[:LONGEST_NAME] for part in fault["loc"]]
        key = prefix + ".".join(path)
        if fault["type"] == "extra_forbidden":
            message = f"unknown key; {nearest(path[-1], _fields_at(model, path[:-1]))}"
        elif fault["type"] == "missing":
            message = "is missing."
        elif fault["type"] == "string_pattern_mismatch" and fault["loc"][-1] == "[key]":
            message = "a candidate's name has only lower-case letters, digits, '_' and '-', and starts with a letter."
        elif fault["type"] == "string_too_long" and fault["loc"][-1] == "[key]":
            message = f"a candidate's name has at most {LONGEST_NAME} characters."
        else:
            reason = fault["msg"].removeprefix("Value error, ")
            message = f"{reason[0].lower()}{reason[1:]} (it is {reprlib.repr(fault['input'])})."
        lines.append(f"params.yaml: {key}: {message}")
    return "\n".join(dict.fromkeys(lines))


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the known keys under a path."""
    for part in path:
        if part not in model.model_fields:  # a candidate's name
            model = Candidate
            continue
        annotation = model.model_fields[part].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)
