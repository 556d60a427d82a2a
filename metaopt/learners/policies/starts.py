"""What the inner optimizers have of a policy's knobs, and where these stand before anybody turns them."""

import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.learners.policies.controlled import INNER
from metaopt.learners.policies.knobs import KNOBS, head_mask, start_values
from metaopt.names import nearest

__all__ = ["ADAMW_KNOBS", "inner_knobs", "inner_start"]

ADAMW_KNOBS = frozenset(KNOBS[:5])
# Where the knobs of torch.optim.AdamW stand; the others keep their published starts.
_ADAMW_START = {"lr": 1e-3, "weight_decay": 1e-2, "epsilon": 1e-8, "one_minus_beta2": 1e-3, "one_minus_beta1": 0.1}


def inner_start(inner: str) -> Tensor:
    """Return where the knobs of an inner optimizer stand before any perturbation, [8] float64.

    Raises:
        ConfigError: no such inner optimizer.
    """
    _check(inner)
    return start_values(**_ADAMW_START) if inner == "adamw" else start_values()


def inner_knobs(inner: str, knobs: tuple[str, ...] = KNOBS) -> Tensor:
    """Return which of some knobs an inner optimizer has, [8] bool.

    Raises:
        ConfigError: no such inner optimizer, or knob.
    """
    _check(inner)
    chosen: Tensor = head_mask(knobs, registers=False)[1:]
    return chosen & torch.tensor([inner != "adamw" or name in ADAMW_KNOBS for name in KNOBS])


def _check(inner: str) -> None:
    if inner not in INNER:
        raise ConfigError(f"inner optimizer {inner!r} is unknown{nearest(inner, INNER)}")
