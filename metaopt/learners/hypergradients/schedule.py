"""A classic rule whose learning rate, momentum and weight decay follow schedules over the horizon, which are what theta is.

Theta holds one tensor [N] a learned hyperparameter, in the coordinates of its link (log for rates and weight decays, logit for momentum):
no theta means a negative rate or a momentum of 1. A schedule is piecewise linear in these coordinates between N evenly spaced knots, the
first at the beginning and the last at the end of the horizon, or constant in N equal segments.

Linear is the default because it says more with as many numbers: on the noisy quadratic problem of 100 directions and 1,000 steps the best
schedule of 4 knots ends 6 % above the unrestricted optimum, that of 4 constants 32 %, that of 8 constants 9 %.

Source: Micaelli, Storkey, 2021, "Gradient-based hyperparameter optimization over long horizons" (2007.07869; one value shared by a segment,
learned by forward differentiation). Differs: links in place of clamps, many tasks in place of one, linear interpolation.
"""

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, get_args

import torch
from annotated_types import Ge, Le
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.learners.hypergradients.links import LINKS, Link
from metaopt.learners.learner import Carry, GradientLearner, StepRecord
from metaopt.learners.update_rules.classic import CLASSIC, ClassicRule
from metaopt.learners.update_rules.options import checked_options
from metaopt.learners.update_rules.rule import Theta
from metaopt.names import nearest
from metaopt.tasks.task import Batch, Task

__all__ = ["INTERFACE", "LEARNABLE", "ScheduleOptions", "ScheduledLearner", "Shape", "hyperparameters_at", "scheduled_learner"]

INTERFACE = "learned_schedule/1"  # of artifacts: the meaning of theta and of the options on the card
LEARNABLE = {"lr": "log", "momentum": "logit", "beta1": "logit", "weight_decay": "log"}  # hyperparameter -> link
Shape = Literal["linear", "constant"]

# Coordinates beyond these are taken for these: float32 would round the values to 0, 1 or infinity, which are outside of the link's range.
_FARTHEST = {"log": 80.0, "logit": 16.0}


def hyperparameters_at(theta: Theta, shape: str, t: Tensor, horizon: Tensor) -> dict[str, Tensor]:
    """Return the value (0-d) of each hyperparameter in theta at update t (0-d, the first one is 0); after the horizon, the last one.

    Args:
        theta: coordinates [N] by hyperparameter.
        shape: "linear" between knots, or "constant" in segments.
        t: integer.
        horizon: inner steps of the run, floating, > 0; its dtype must count them exactly.

    Differentiable in theta, once and again.
    """
    found = {}
    for name, knots_N in theta.items():
        link = LINKS[LEARNABLE[name]]
        coordinate = (_shares(len(knots_N), shape, t, horizon).to(knots_N.dtype) * knots_N).sum()
        found[name] = link.value(coordinate.clamp(-_FARTHEST[link.name], _FARTHEST[link.name]))
    return found


def _shares(count: int, shape: str, t: Tensor, horizon: Tensor) -> Tensor:
    """Return how much each of N values counts at update t [N]: they sum to 1, one or two are not 0."""
    place = torch.arange(count, device=t.device, dtype=horizon.dtype)
    intervals = count if shape == "constant" else count - 1
    position = t.to(horizon.dtype) * intervals / horizon  # the product is exact, and so is the quotient where a segment begins
    if shape == "constant":
        return (place == position.floor().clamp(max=count - 1)).to(horizon.dtype)
    return (1.0 - (place - position.clamp(max=intervals)).abs()).clamp(min=0.0)


@dataclass(frozen=True)
class ScheduleOptions:
    """What a config and a card say about a learned schedule, besides the rule and its hyperparameters.

    Attributes:
        learn: names of the rule's hyperparameters that are learned, "lr" among them.
        values: N, how many numbers a schedule has.
        shape: what it does between them.
    """

    learn: tuple[str, ...] = ("lr",)
    values: Annotated[int, Ge(1), Le(1000)] = 8
    shape: Shape = "linear"


@dataclass(frozen=True)
class ScheduledLearner(ScheduleOptions):
    """A learner that takes the steps of a classic rule under learned schedules.

    Attributes:
        rule: any of `classic.CLASSIC`; its hyperparameters are the constants that the schedules start from, and those that are not learned.

    Raises:
        ConfigError: something to learn that the rule does not have, or a start that its link has no coordinate for.
    """

    rule: ClassicRule = field(kw_only=True)
    _plain: GradientLearner = field(init=False, repr=False, compare=False)  # made once: a compiled step cannot make it

    def __post_init__(self) -> None:
        object.__setattr__(self, "_plain", GradientLearner(self.rule))
        name, own = self.rule.name, [one for one in LEARNABLE if one in self.rule.hyperparameters]
        for one in self.learn:
            if one not in own:
                raise ConfigError(f"learn names {one!r}, which {name} has no schedule for{nearest(one, own)}")
            start, link = self.rule.hyperparameters[one], self._link(one)
            if not torch.isfinite(link.to(torch.tensor(start, dtype=torch.float64))):
                raise ConfigError(
                    f"{one} of {name} starts at {start:g}, and is learned within ({link.low:g}, {link.high:g}); set {one} to a value inside"
                )
        if len(set(self.learn)) < len(self.learn) or "lr" not in self.learn:
            raise ConfigError(f"learn must name lr, and nothing twice, got {', '.join(self.learn) or 'nothing'}")
        if not 1 <= self.values <= 1000:
            raise ConfigError(f"values must be >= 1 and <= 1000, got {self.values}")
        if self.shape not in get_args(Shape):
            raise ConfigError(f"shape must be one of {', '.join(get_args(Shape))}, got {self.shape!r}")

    @staticmethod
    def _link(name: str) -> Link:
        return LINKS[LEARNABLE[name]]

    def init_theta(self, seed: int) -> Theta:
        """Return constant schedules at the rule's own values, float32 [N] each; the seed is not used."""
        starts = {name: torch.tensor(self.rule.hyperparameters[name], dtype=torch.float64) for name in self.learn}
        return {name: self._link(name).to(start).float().repeat(self.values) for name, start in starts.items()}

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return the carry of a gradient learner; it does not depend on theta."""
        return self._plain.init({}, task, key)

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return the carry after one update under the hyperparameters of its step, and the loss before it."""
        now = hyperparameters_at(theta, self.shape, carry["t"], task.horizon)
        return self._plain.advance(now, task, carry, batch)


def scheduled_learner(rule: str, **options: Any) -> ScheduledLearner:
    """Return a learned schedule of a rule by name; options are `learn`, `values`, `shape` and the rule's hyperparameters, as on a card.

    Raises:
        ConfigError: no such rule or option, or a value that it does not take.
    """
    if rule not in CLASSIC:
        raise ConfigError(f"a schedule cannot be learned for rule {rule!r}{nearest(rule, CLASSIC)}")
    own = {one.name for one in fields(ScheduleOptions)}
    of_rule = checked_options(rule, CLASSIC[rule], {key: value for key, value in options.items() if key not in own})
    mine = checked_options(rule, ScheduleOptions, {key: value for key, value in options.items() if key in own})
    return ScheduledLearner(rule=CLASSIC[rule](**of_rule), **mine)
