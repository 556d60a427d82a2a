"""Which baselines there are, and which learning rates K trials of each may try.

A rate grid is fifteen thirds of a decade around the rate that the optimizer's documentation or the usual tutorial names, reaching further
up than down because short runs want larger rates than long ones. K = 5 takes every third of them and K = 1 the documented rate, so a
larger budget contains the smaller ones. No rate was chosen by looking at an evaluation suite.
"""

from dataclasses import dataclass

from metaopt.registry import Registry

__all__ = ["SCHEDULE", "TRIALS", "Baseline", "get", "names"]

SCHEDULE = "warmup_cosine"
TRIALS = (1, 5, 15)
_STEPS = {1: (0,), 5: (-3, 0, 3, 6, 9), 15: tuple(range(-5, 10))}  # thirds of a decade from the default


@dataclass(frozen=True)
class Baseline:
    """A known optimizer under warm-up and cosine.

    Attributes:
        name: what reports call it.
        rule: registry name of the update rule; `lr` is its hyperparameter.
        default_lr: the rate of K = 1.
    """

    name: str
    rule: str
    default_lr: float

    def rates(self, trials: int) -> tuple[float, ...]:
        """Return the rates that a budget of `trials` (1, 5 or 15) tries, increasing."""
        return tuple(float(f"{self.default_lr * 10 ** (third / 3):.4g}") for third in _STEPS[trials])


_BASELINES = Registry(
    "baseline",
    "metaopt.baselines",
    {
        "sgd": Baseline("sgd", "sgd", 0.1),
        "sgd_momentum": Baseline("sgd_momentum", "momentum", 0.01),  # momentum 0.9: as far a step as SGD's 0.1 once it is up to speed
        "adamw": Baseline("adamw", "adamw", 1e-3),  # torch's default
        "nadam": Baseline("nadam", "nadam", 2e-3),  # torch's default
    },
)


def names() -> tuple[str, ...]:
    """Return the names of all baselines, those of installed plug-ins included."""
    return tuple(_BASELINES)


def get(name: str) -> Baseline:
    """Return a baseline by name.

    Raises:
        ConfigError: no such baseline; the message has the nearest name.
    """
    return _BASELINES[name]
