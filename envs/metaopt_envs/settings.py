"""What an episode is made of: the bucket that says which runs, and the settings that say what a policy sees, may do and is paid for.

Legend: E runs.
"""

from dataclasses import dataclass
from typing import Literal

from metaopt.errors import ConfigError
from metaopt.learners.policies.controlled import INNER
from metaopt.learners.policies.knobs import KNOBS, find_table
from metaopt.names import nearest
from metaopt.tasks import TaskSpec
from metaopt.tasks import get as get_family

__all__ = ["Bucket", "Settings"]


@dataclass(frozen=True)
class Bucket:
    """Runs of one shape: plain data, from which the tasks follow.

    Attributes:
        family, template: the static shape.
        horizon: inner steps N of each run, >= 2.
        decisions: T, from 1 to `horizon`.
        draws: seeds of the tasks; run i of a group works on task `draws[i % len(draws)]`.
        inner: inner optimizer, "adamw" or "unitless_adam".
    """

    family: str
    template: str
    horizon: int
    decisions: int
    draws: tuple[int, ...] = (0,)
    inner: str = "adamw"

    def __post_init__(self) -> None:
        if not 1 <= self.decisions <= self.horizon or self.horizon < 2:
            raise ConfigError(f"a bucket needs 1 <= decisions <= horizon and horizon >= 2, got {self.decisions} and {self.horizon}")
        if not self.draws:
            raise ConfigError("a bucket needs at least one draw, got none")
        if self.inner not in INNER:
            raise ConfigError(f"inner optimizer {self.inner!r} is unknown{nearest(self.inner, INNER)}")

    def specs(self) -> list[TaskSpec]:
        """Return the spec of each draw."""
        family = get_family(self.family)
        return [family.sample(self.template, draw, (self.horizon, self.horizon)) for draw in self.draws]


@dataclass(frozen=True)
class Settings:
    """What every episode has in common.

    Attributes:
        table: relative actions, one of `knobs.TABLES`.
        knobs: those that a policy may turn, as far as the inner optimizer has them.
        registers: whether it may save and load.
        knob_missing, eval_missing, registers_missing: probability that an episode goes without a knob, the evaluation loss, or the
            registers: what a user's loop may lack.
        perturbed: share of episodes that begin away from the knobs' starts.
        highest_lr: learning rates stay at or below it.
        against: what the score compares with: AdamW at 1e-3, or the best of five constant rates.
        rescue: a run whose loss is not finite gets one more decision if a register is filled.
    """

    table: str = "wide"
    knobs: tuple[str, ...] = KNOBS
    registers: bool = True
    knob_missing: float = 0.1
    eval_missing: float = 0.3
    registers_missing: float = 0.5
    perturbed: float = 1.0
    highest_lr: float = 0.1
    against: Literal["default", "best_constant"] = "default"
    rescue: bool = True

    def __post_init__(self) -> None:
        find_table(self.table)
        for field in ("knob_missing", "eval_missing", "registers_missing", "perturbed"):
            if not 0.0 <= getattr(self, field) <= 1.0:
                raise ConfigError(f"{field} must be in [0, 1], got {getattr(self, field)}")
        for name in self.knobs:
            if name not in KNOBS:
                raise ConfigError(f"knob {name!r} is unknown{nearest(name, KNOBS)}")
