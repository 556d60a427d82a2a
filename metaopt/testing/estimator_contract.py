"""What the trainer expects of an estimator, as clauses that run on any recipe."""

import copy
import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from metaopt import learners, tasks
from metaopt.estimators import Estimator, MetaGradient, Recipe, flatten
from metaopt.learners import Learner
from metaopt.learners.update_rules import Theta
from metaopt.tasks.source import TaskSource
from metaopt.testing.contract import Contract, require

__all__ = ["ESTIMATOR_CLAUSES", "check_estimator"]

_PAIRS, _ESTIMATES = 2, 5


@dataclass(frozen=True)
class _Subject:
    recipe: Recipe
    learner: Learner
    theta: Theta

    def build(self, pairs: int = _PAIRS, seed: int = 1) -> Estimator:
        """Return a fresh estimator on runs that end inside windows."""
        window = self.recipe.window
        source = TaskSource(tasks.get("quadratic"), "10x1-gradient", (window, 3 * window + 1), seed=3)
        return self.recipe.build(self.learner, source, pairs, seed)


ESTIMATOR: Contract[_Subject] = Contract()


def _same(one: MetaGradient, two: MetaGradient) -> bool:
    rest = [{k: repr(v) for k, v in vars(each).items() if k != "grad"} for each in (one, two)]
    return torch.equal(flatten(one.grad), flatten(two.grad)) and rest[0] == rest[1]


def _plain(state: Any, place: str = "state") -> None:
    """Raise unless a state is made of what a checkpoint can hold without pickle."""
    if isinstance(state, dict):
        require(all(isinstance(key, str) for key in state), f"{place} has keys that are no strings")
        for key, value in state.items():
            _plain(value, f"{place}.{key}")
    elif isinstance(state, list):
        for i, value in enumerate(state):
            _plain(value, f"{place}.{i}")
    else:
        require(state is None or isinstance(state, Tensor | bool | int | float | str), f"{place} is a {type(state).__name__}")
        require(not isinstance(state, Tensor) or not state.requires_grad, f"{place} drags a graph along")


@ESTIMATOR.clause
def static(subject: _Subject) -> None:
    """Its recipe is a frozen, hashable dataclass with a name and a window of at least 1, and equal options make an equal one."""
    recipe = subject.recipe
    require(dataclasses.is_dataclass(recipe), f"{type(recipe).__name__}, which is no dataclass")
    hash(recipe)
    require(isinstance(recipe.name, str) and bool(recipe.name), f"name {recipe.name!r}")
    require(recipe.window >= 1, f"window {recipe.window}")
    options = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(cast(Any, recipe)) if field.init}
    require(type(recipe)(**options) == recipe, f"another recipe from the options {options}")


@ESTIMATOR.clause
def harmless(subject: _Subject) -> None:
    """It leaves theta as it was, bit for bit."""
    theta = {name: value.clone() for name, value in subject.theta.items()}
    subject.build().estimate(theta, 0)
    for name, value in subject.theta.items():
        require(torch.equal(theta[name], value) and not theta[name].requires_grad, f"{name} changed")


@ESTIMATOR.clause
def shapes(subject: _Subject) -> None:
    """Gradients are finite, have theta's names, shapes and dtype (float32 as well as what it was given in), and no graph."""
    for theta in (subject.theta, {name: value.float() for name, value in subject.theta.items()}):
        got = subject.build().estimate(theta, 0)
        require(list(got.grad) == list(theta), f"names {list(got.grad)}")
        for name, value in theta.items():
            grad = got.grad[name]
            require(grad.shape == value.shape and grad.dtype == value.dtype, f"{name}: {grad.dtype} {tuple(grad.shape)}")
            require(bool(torch.isfinite(grad).all()), f"{name} is not finite")
            require(not grad.requires_grad, f"{name} requires a gradient")


@ESTIMATOR.clause
def counts(subject: _Subject) -> None:
    """It counts the steps of every member, and those made one after the other, and gives a finite loss and a share of clipped entries."""
    got = subject.build().estimate(subject.theta, 0)
    require(got.sequential_steps >= subject.recipe.window, f"{got.sequential_steps} sequential steps")
    most = 2 * _PAIRS * got.sequential_steps
    require(got.sequential_steps <= got.inner_steps <= most, f"{got.inner_steps} inner steps of at most {most}")
    require(abs(got.loss) < float("inf"), f"loss {got.loss}")
    require(0.0 <= got.clipped_frac <= 1.0, f"clipped_frac {got.clipped_frac}")
    require(got.nonfinite == 0 and got.diverged == 0, f"{got.nonfinite} non-finite rows and {got.diverged} diverged pairs on a benign task")


@ESTIMATOR.clause
def pure(subject: _Subject) -> None:
    """An estimate is a function of state, theta and outer step: the same bits twice, whatever the global generator did."""
    histories = []
    for i in range(2):
        torch.manual_seed(i)
        estimator = subject.build()
        histories.append([estimator.estimate(subject.theta, k) for k in range(_ESTIMATES)])
    for k, (one, two) in enumerate(zip(*histories, strict=True)):
        require(_same(one, two), f"another estimate {k} at the second time")
    require(not _same(histories[0][0], histories[0][1]), "the same estimate twice in a row: the runs did not go on")


@ESTIMATOR.clause
def resumes(subject: _Subject) -> None:
    """A state, plain data that later estimates leave alone, continues bit for bit in another estimator, also under another theta."""
    moved = {name: value * 1.01 + 0.001 for name, value in subject.theta.items()}
    thetas = [subject.theta, moved] * _ESTIMATES
    for stop in (0, 1, 3):
        whole = subject.build()
        for k in range(stop):
            whole.estimate(thetas[k], k)
        state = whole.state()
        _plain(state)
        kept = copy.deepcopy(state)
        expected = [whole.estimate(thetas[k], k) for k in range(stop, stop + _ESTIMATES)]
        for given in (state, kept):  # the same, unless what was handed out changed later
            other = subject.build()
            other.load(given)
            for k, want in enumerate(expected, start=stop):
                require(_same(other.estimate(thetas[k], k), want), f"another estimate {k} from the state after {stop}")


ESTIMATOR_CLAUSES = ESTIMATOR.sentences


def check_estimator(
    recipe: Recipe,
    learner: Learner | None = None,
    theta: Theta | None = None,
    *,
    skip: Collection[str] = (),
    only: Collection[str] | None = None,
) -> tuple[str, ...]:
    """Check every clause of `ESTIMATOR_CLAUSES` on a recipe, on small quadratics, and return the names of those that were checked.

    Args:
        recipe: any recipe; a short window makes it fast.
        learner: what is meta-trained; None for learnable Adam.
        theta: where; None for the learner's start.
        skip, only: names of clauses.

    Raises:
        ContractError: the first clause that is broken, with what was observed.
        ConfigError: a clause of that name does not exist.
    """
    chosen: Learner = learner if learner is not None else learners.get("learnable_adam")
    return ESTIMATOR.check(_Subject(recipe, chosen, theta if theta is not None else chosen.init_theta(0)), skip, only)
