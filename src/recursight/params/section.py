"""Base class and value types of the sections of params.yaml."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Natural = Annotated[int, Field(ge=0, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Widths = Annotated[
    list[Positive], BeforeValidator(lambda value: value if isinstance(value, list) else [value]), Field(min_length=1)
]
LONGEST_NAME = 64  # it names folders, DVC stages and MLflow runs
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=LONGEST_NAME)]


class Section(BaseModel):
    """A mapping in params.yaml; immutable, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
