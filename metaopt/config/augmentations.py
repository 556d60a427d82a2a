"""The `augmentations` section of a config: a preset, and a section for each augmentation, whose keys are the fields of its dataclass."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, GetCoreSchemaHandler, TypeAdapter, create_model
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from metaopt.config.options import Chosen, options_of
from metaopt.config.sections import Positive, Section, check_range

if TYPE_CHECKING:
    from metaopt.tasks.augmentations import Augmentation

__all__ = ["AugmentationsConfig"]


def _kinds() -> Mapping[str, Any]:
    from metaopt.tasks.augmentations import AUGMENTATIONS

    return AUGMENTATIONS


@functools.cache
def _model(name: str) -> type[BaseModel]:
    fields: dict[str, Any] = options_of(_kinds()[name])
    return create_model(f"AugmentationConfig[{name}]", __base__=AugmentationConfig, **fields)


@dataclass(frozen=True)
class _Options(Chosen):
    """Marks a field as the options of the augmentation `key`; with `short`, a list of two stands for its range `scale`."""

    short: bool = False

    def model(self, base: type[BaseModel], value: Any) -> type[BaseModel] | None:
        return _model(self.key)

    def __get_pydantic_core_schema__(self, base: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: Any) -> Any:
            if value is None or isinstance(value, BaseModel):
                return value
            if self.short and isinstance(value, list | tuple):
                bounds = _RANGE.validate_json(json.dumps(value), strict=True)
                check_range((), bounds)
                return bounds
            if not isinstance(value, dict):
                raise PydanticKnownError("dict_type")
            options = _model(self.key).model_validate_json(json.dumps(value))  # through JSON: strict, yet a list may stand for a tuple
            for name, entry in options:
                if isinstance(entry, tuple):
                    check_range((name,), entry)
            return options

        return core_schema.no_info_plain_validator_function(validate)


_RANGE = TypeAdapter(tuple[Positive, Positive])


class AugmentationConfig(Section):
    """The options of one augmentation."""


class AugmentationsConfig(Section):
    """Changes to the tasks of meta-training; evaluation has none.

    A shard draws once, from its seed, which augmentations it has (each by its `probability`) and their static choices; their strengths are
    drawn at every episode. `preset: velo` has the published probabilities; a section replaces the preset's (`probability: 0` for none).
    `reparametrisation: [low, high]` is short for a global scale w = s w' on that range, always on.
    """

    preset: Literal["velo"] | None = None
    reduced_batch: Annotated[AugmentationConfig | None, _Options("reduced_batch", _kinds)] = None
    bfloat16: Annotated[AugmentationConfig | None, _Options("bfloat16", _kinds)] = None
    evolution_gradients: Annotated[AugmentationConfig | None, _Options("evolution_gradients", _kinds)] = None
    reparametrisation: Annotated[
        tuple[Positive, Positive] | AugmentationConfig | None, _Options("reparametrisation", _kinds, short=True)
    ] = None
    random_directions: Annotated[AugmentationConfig | None, _Options("random_directions", _kinds)] = None
    gradient_noise: Annotated[AugmentationConfig | None, _Options("gradient_noise", _kinds)] = None
    normalised_gradients: Annotated[AugmentationConfig | None, _Options("normalised_gradients", _kinds)] = None
    delayed_gradients: Annotated[AugmentationConfig | None, _Options("delayed_gradients", _kinds)] = None

    @property
    def choices(self) -> "tuple[Augmentation, ...]":
        """What a source of tasks chooses from, in the order in which they wrap a program."""
        from metaopt.tasks.augmentations import PRESETS

        found = {augmentation.name: augmentation for augmentation in PRESETS.get(self.preset or "", ())}
        for name, kind in _kinds().items():
            section = getattr(self, name)
            if section is not None:
                found[name] = kind(scale=section) if isinstance(section, tuple) else kind(**section.model_dump())
        return tuple(found[name] for name in _kinds() if name in found and found[name].probability > 0)
