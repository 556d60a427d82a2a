"""Guard rails: how far a policy may move the learning rate, and what happens when a run is no longer finite."""

import math
from dataclasses import dataclass

from metaopt.errors import ConfigError
from metaopt.learners.policies.knobs import KNOB_SPECS

__all__ = ["WIDTH", "Handover", "rate_limits"]

WIDTH = (1e-3, 1e2)  # of the start; training perturbs starts by up to 100 either way


def rate_limits(guard: bool | tuple[float, float], start: float, highest: float | None) -> tuple[float, float]:
    """Return the least and the largest rate in the policy's coordinates, in which `start` is the published start.

    Args:
        guard: True for `WIDTH` around the start, other factors of it, or False for the policy's own bounds.
        start: the optimizer's rate.
        highest: of the policy's card, None for none; a start above it is the highest itself.

    Raises:
        ConfigError: factors that do not enclose 1.
    """
    spec = KNOB_SPECS[0]
    low, high = spec.low, spec.high
    if guard is not False:
        factors = WIDTH if guard is True else guard
        if len(factors) != 2 or not 0.0 < factors[0] <= 1.0 <= factors[1] < math.inf:
            raise ConfigError(f"guard must be True, False or two factors of the start, one <= 1 and one >= 1; got {guard!r}")
        low, high = max(low, spec.start * factors[0]), min(high, spec.start * factors[1])
    if highest is not None:
        high = min(high, spec.start * max(1.0, highest / start))
    return low, high


@dataclass(frozen=True)
class Handover:
    """A cosine to zero that takes over from a policy.

    Attributes:
        step: when.
        lr: the rate then.
    """

    step: int
    lr: float

    def rate(self, step: int, total_steps: int) -> float:
        """Return the rate after so many steps; at the end of the run and past it, zero."""
        share = min(1.0, (step - self.step) / max(1, total_steps - self.step))
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * share))
