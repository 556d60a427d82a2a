"""What the sections of a config are made of: ranges of values, the frozen model, and errors that name their place."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

__all__ = [
    "Count",
    "Decay",
    "Fraction",
    "Name",
    "Natural",
    "NonNegative",
    "Positive",
    "Section",
    "check_range",
    "check_trained_family",
    "config_error",
]

# Names become parts of paths: no separators, no leading dot, no two dots in a row, a bounded length.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9](\.?[A-Za-z0-9_-])*\.?$", max_length=100)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Natural = Annotated[int, Field(ge=0, le=10**9)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of a config: unknown keys are refused, integers and booleans are strict, floats are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


def config_error(path: tuple[str | int, ...], message: str) -> PydanticCustomError:
    """Return an error about the field at `path` (relative to the model that raises it) that the loader reports with its place."""
    return PydanticCustomError("config", "{text}", {"text": message, "at": list(path)})


def check_range(path: tuple[str, ...], bounds: tuple[float, float]) -> None:
    """Raise unless `bounds` are [low, high] with low <= high."""
    if bounds[0] > bounds[1]:
        raise config_error(path, f"must be [low, high] with low <= high, got [{bounds[0]}, {bounds[1]}]")


def check_trained_family(path: tuple[str, ...], family: str) -> None:
    """Raise unless `family` is a task family with templates to train on."""
    from metaopt import tasks

    if family not in tasks.names():
        raise PydanticCustomError("unknown_name", "", {"at": list(path), "allowed": sorted(tasks.names())})
    if not tasks.get(family).templates("meta_train"):
        raise config_error(path, f"must have meta_train templates, got {family!r}, which is for evaluation only")
