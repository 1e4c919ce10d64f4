"""Base class and value types of the sections of params.yaml."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Widths = Annotated[
    list[Positive], BeforeValidator(lambda value: value if isinstance(value, list) else [value]), Field(min_length=1)
]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


class Section(BaseModel):
    """A mapping in params.yaml; immutable, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
