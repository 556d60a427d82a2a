"""Which baselines there are: an optimizer, its schedule, and the hyperparameters that K trials of it may try.

A baseline's name says its optimizer (`adamw`), or optimizer and schedule (`adamw+wsd`); without a schedule it has the optimizer's first
one. K = 1 is what the documentation or the usual tutorial says; larger budgets contain the smaller ones (`space`).

Beside the search, a grid of learning rates with everything else at its default: fifteen thirds of a decade, reaching further up than down
because short runs want larger rates than long ones. Under the constant schedule it gives the envelope that the literature compares with.
No range was chosen by looking at an evaluation suite.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from metaopt.baselines.space import Axis, Trial, trials_of
from metaopt.errors import ConfigError
from metaopt.learners import WHOLE_MODEL, GradientLearner, Learner, named_schedule
from metaopt.learners.update_rules import get_rule
from metaopt.names import nearest
from metaopt.registry import Registry

__all__ = ["DEFAULT", "MOST_TRIALS", "SCHEDULE", "TRIALS", "Baseline", "get", "names", "variants"]

SCHEDULE = "warmup_cosine"
TRIALS = (1, 5, 15)  # budgets of every report
MOST_TRIALS = 100  # the largest budget that has a design, for small suites
DEFAULT = ("sgd", "sgd_momentum", "adamw", "nadam")  # those that an evaluation runs unless told otherwise

_ALL = ("warmup_cosine", "constant", "wsd", "inverse_sqrt")
_RATES = 15


@dataclass(frozen=True)
class Baseline:
    """A known optimizer under one schedule.

    Attributes:
        name: what reports call it.
        rule: registry name of an update rule, or a name in `metaopt.learners.WHOLE_MODEL`; `lr` is a hyperparameter of either.
        default_lr: the rate of K = 1.
        axes: what a search tries beside the rate.
        options: of the rule, where they differ from its own defaults.
        schedule: its schedule.
        schedules: those that it has variants for, its usual one first.
        rate_step, rate_first: the grid's rates are default_lr * 10**(rate_step * i) for fifteen i from rate_first on.
        full_batch: makes sense only where every batch is the whole data.
        stored: whether its curves ship with the package; those of others are computed at first use and kept in the user's cache.
    """

    name: str
    rule: str
    default_lr: float
    axes: tuple[Axis, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    schedule: str = SCHEDULE
    schedules: tuple[str, ...] = _ALL
    rate_step: float = 1 / 3
    rate_first: int = -5
    full_batch: bool = False
    stored: bool = True

    def learner(self) -> Learner:
        """Return the learner; it takes the hyperparameters of a trial from theta."""
        if self.rule in WHOLE_MODEL:
            return WHOLE_MODEL[self.rule](schedule=named_schedule(self.schedule), **dict(self.options))
        return GradientLearner(get_rule(self.rule, **dict(self.options)), named_schedule(self.schedule))

    def default(self) -> Trial:
        """Return the documented default: the trial of K = 1."""
        learner = WHOLE_MODEL[self.rule](**dict(self.options)) if self.rule in WHOLE_MODEL else get_rule(self.rule, **dict(self.options))
        own = learner.hyperparameters
        return Trial.of({**{axis.name: own[axis.name] for axis in self.axes}, "lr": self.default_lr})

    def trials(self, count: int) -> tuple[Trial, ...]:
        """Return what a budget of `count` trials, [1, MOST_TRIALS], tries; the first `n` of them are `trials(n)`."""
        if not 1 <= count <= MOST_TRIALS:
            raise ConfigError(f"trials must be in [1, {MOST_TRIALS}], got {count}")
        rates = self.rates(_RATES)
        return trials_of(self.default().hyperparameters, (Axis("lr", rates[0], rates[-1]), *self.axes), count)

    def rates(self, count: int) -> tuple[float, ...]:
        """Return `count` rates (1, 5 or 15) of the grid, increasing: the default, every third one, all."""
        steps = range(self.rate_first, self.rate_first + _RATES)
        chosen = {1: [0], 5: [i for i in steps if i % 3 == 0], _RATES: list(steps)}[count]
        return tuple(float(f"{self.default_lr * 10 ** (self.rate_step * i):.4g}") for i in chosen)

    def rate_trials(self) -> tuple[Trial, ...]:
        """Return the grid's fifteen trials: every rate, everything else at its default."""
        return tuple(self.at(rate) for rate in self.rates(_RATES))

    def at(self, rate: float) -> Trial:
        """Return the default trial with another rate."""
        return Trial.of({**self.default().hyperparameters, "lr": rate})

    def option(self, trial: Trial) -> str:
        """Return a trial as text that `parse` reads: the rate alone where the rest is the default."""
        if trial == self.at(trial.rate):
            return f"{trial.rate:g}"
        return ",".join(f"{name}={value!r}" for name, value in trial.values)

    def parse(self, text: str) -> Trial:
        """Return the trial that `RATE` or `lr=RATE,NAME=VALUE,...` stands for; what is not said has its default.

        Raises:
            ConfigError: no number, a rate that is not > 0, or a hyperparameter that this baseline does not search.
        """
        given = dict(part.partition("=")[::2] for part in text.split(",")) if "=" in text else {"lr": text} if text else {}
        values = self.default().hyperparameters
        for name, number in given.items():
            if name not in values:
                raise ConfigError(f"baseline {self.name} has no hyperparameter {name!r}{nearest(name, values)}")
            try:
                values[name] = float(number)
            except ValueError:
                values[name] = math.nan
            if not math.isfinite(values[name]) or (name == "lr" and values[name] <= 0.0):
                bound = "a learning rate > 0" if name == "lr" else f"a number for {name}"
                raise ConfigError(f"learner {self.name + '@' + text!r}: after '@' the baseline {self.name} takes {bound}, got {number!r}")
        return Trial.of(values)


_COUPLED = Axis("weight_decay", 1e-6, 1e-2)  # added to the gradient
_DECOUPLED = Axis("weight_decay", 1e-3, 1.0)  # in units of the step
_MOMENTUM = Axis("momentum", 0.5, 0.98, "log_one_minus")
_BETA1 = Axis("beta1", 0.5, 0.98, "log_one_minus")
_BETA2 = Axis("beta2", 0.9, 0.999, "log_one_minus")


def _distance_over_gradients(name: str) -> Baseline:
    """Return DoG or LDoG, which have no schedule and a rate that is best left at 1.

    The authors needed first distances of 1e-8 to 1e-4; short runs have few steps to grow from there, hence up to 1e-2.
    """
    axes = (Axis("reps_rel", 1e-8, 1e-2), _COUPLED)
    return Baseline(name, name, 1.0, axes, (), "constant", ("constant",), rate_step=0.1, rate_first=-7, stored=False)


def _hypergradient(rule: str, default_lr: float, axes: tuple[Axis, ...]) -> Baseline:
    """Return an optimizer that learns its rate: the optimizer's own search, and the rate of its rate, a decade either way.

    The schedule, if any, multiplies the learned rate.
    """
    name = f"hypergradient_{rule}"
    usual = WHOLE_MODEL[name]().hyperparameters["hyper_lr"]
    found = (Axis("hyper_lr", usual / 10, usual * 10), *axes)
    return Baseline(name, name, default_lr, found, (), "constant", ("constant", "warmup_cosine"), stored=False)


_BASELINES = Registry(
    "baseline",
    "metaopt.baselines",
    {
        one.name: one
        for one in (
            Baseline("sgd", "sgd", 0.1, (_COUPLED,)),
            # Momentum 0.9: as far a step as SGD's 0.1 once it is up to speed.
            Baseline("sgd_momentum", "momentum", 0.01, (_COUPLED, _MOMENTUM)),
            Baseline("adamw", "adamw", 1e-3, (_DECOUPLED, _BETA1, _BETA2)),
            Baseline("nadam", "nadam", 2e-3, (_COUPLED, _BETA1, _BETA2)),
            Baseline("adam", "adam", 1e-3, (_COUPLED, _BETA1, _BETA2)),
            Baseline("radam", "radam", 1e-3, (_COUPLED, _BETA1, _BETA2)),
            Baseline("adafactor", "adafactor", 1e-2, (_DECOUPLED, Axis("beta2_decay", -0.9, -0.5, "linear"))),
            Baseline("muon", "muon", 1e-3, (_DECOUPLED, Axis("momentum", 0.8, 0.98, "log_one_minus"), _BETA2)),
            Baseline("lion", "lion", 1e-4, (_DECOUPLED, _BETA1, _BETA2)),
            Baseline(
                "schedule_free_adamw", "schedule_free_adamw", 2.5e-3, (_DECOUPLED, _BETA1, _BETA2), (), "warmup", ("warmup", "constant")
            ),
            Baseline(
                "prodigy",
                "prodigy",
                1.0,
                (_DECOUPLED, _BETA1, _BETA2),
                (("safeguard_warmup", True),),
                schedules=("warmup_cosine", "constant"),
                rate_step=0.1,
                rate_first=-10,  # further down than up: its own estimate overshoots in short runs
            ),
            Baseline("lbfgs", "lbfgs", 1.0, (), (), "constant", ("constant",), rate_step=0.1, rate_first=-13, full_batch=True),
            _distance_over_gradients("dog"),
            _distance_over_gradients("ldog"),
            _hypergradient("sgd", 0.1, (_COUPLED,)),
            _hypergradient("momentum", 0.01, (_COUPLED, _MOMENTUM)),
            _hypergradient("adam", 1e-3, (_COUPLED, _BETA1, _BETA2)),
            _hypergradient("adamw", 1e-3, (_DECOUPLED, _BETA1, _BETA2)),
            Baseline(
                "metaoptimize",
                "metaoptimize",
                1e-3,
                (Axis("meta_lr", 1e-4, 1e-2), _DECOUPLED, _BETA1, _BETA2),
                schedule="constant",
                schedules=("constant", "warmup_cosine"),
                stored=False,
            ),
            Baseline(
                "hdm_best",
                "hdm_best",
                1.0,  # in units of one over the curvature that it has met
                (Axis("momentum_lr", 0.1, 10.0),),
                schedule="constant",
                schedules=("constant",),
                rate_step=0.1,
                rate_first=-7,
                full_batch=True,
                stored=False,
            ),
        )
    },
)


def names() -> tuple[str, ...]:
    """Return the names of all optimizers, those of installed plug-ins included; each is a baseline under its usual schedule."""
    return tuple(_BASELINES)


def variants(*optimizers: str) -> tuple[str, ...]:
    """Return the names of baselines under each of their schedules: of these optimizers, or of all."""
    chosen = [_BASELINES[name] for name in optimizers or names()]
    return tuple(one.name if schedule == one.schedule else f"{one.name}+{schedule}" for one in chosen for schedule in one.schedules)


def get(name: str) -> Baseline:
    """Return a baseline by name, `OPTIMIZER` or `OPTIMIZER+SCHEDULE`.

    Raises:
        ConfigError: no such baseline, or no such variant; the message has the nearest name.
    """
    optimizer, plus, schedule = name.partition("+")
    found = _BASELINES[optimizer]
    if not plus or schedule == found.schedule:
        return found
    if schedule not in found.schedules:
        raise ConfigError(f"baseline {optimizer} has no schedule {schedule!r}{nearest(schedule, found.schedules)}")
    return replace(found, name=name, schedule=schedule)
