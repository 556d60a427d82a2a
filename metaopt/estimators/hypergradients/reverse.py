"""Hypergradients by reverse mode through the last steps of a run: one of them, or a window that is recomputed piece by piece.

Legend: T inner steps, K window, C steps of a piece.

The forward pass keeps the state at the beginning of each piece of C steps. The backward pass goes through the pieces from the last to the
first, repeats a piece with its graph, and pulls the state's cotangent through it: memory of K / C states and C graphs. The last piece is
run once, since its graph is needed first.

Source: Maclaurin et al., 2015, "Gradient-based hyperparameter optimization through reversible learning" (1502.03492; reverse mode through
training); Griewank, Walther, 2000, "Revolve" (checkpoints; differs: one level, evenly spaced); Shaban et al., 2019, "Truncated
back-propagation for bilevel optimization" (1810.10667; the window); Baydin et al., 2018, "Online learning rate adaptation with
hypergradient descent" (1703.04782; one step).
"""

import functools
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from annotated_types import Ge
from torch import Tensor
from torch.func import vjp

from metaopt.errors import ConfigError
from metaopt.estimators import higher_backend
from metaopt.estimators.hypergradients.gradient_step import GradientStep, Loss
from metaopt.estimators.hypergradients.problem import Hyperparameters, Leaves, Problem
from metaopt.estimators.hypergradients.recipe import HVP, STEP, HypergradientRecipe, Memory, check_count
from metaopt.estimators.tangents import floating
from metaopt.tasks.task import Params

__all__ = ["OneStep", "Unrolled"]

Backend = Literal["own", "higher"]


@dataclass(frozen=True)
class OneStep(HypergradientRecipe):
    """The derivative of the last step alone, the state before it held fixed: what hypergradient descent follows."""

    name: ClassVar[str] = "one_step"
    bias: ClassVar[str] = "Greedy: a step's effect on all but the next state is left out, which favours step sizes that are too small."
    memory_formula: ClassVar[str] = "1 state, 1 graph"
    cost_formula: ClassVar[str] = "T + 3"

    def memory(self, steps: int, columns: int) -> Memory:
        """Return the state before the last step and that step's graph."""
        return Memory(1, 1)

    def cost(self, steps: int, columns: int) -> float:
        """Return T steps, one Hessian-vector product and the outer gradient."""
        return STEP * steps + HVP + STEP

    def compute(self, problem: Problem) -> Hyperparameters:
        """Return the estimate."""
        return _pulled_back(problem, 1, 1)


@dataclass(frozen=True)
class Unrolled(HypergradientRecipe):
    """The derivative of the last K steps, the state before them held fixed.

    Attributes:
        window: K, in [1, T]; None for all T steps, which is exact.
        checkpoint_steps: C; 0 for the square root of K, rounded up. At C >= K nothing is run twice.
        backend: "own", or "higher": the package's differentiable SGD, momentum and Adam, for an inner step made by `gradient_step`. It
            keeps the graphs of the whole window, and its Adam is not torch's (see `metaopt.estimators.higher_backend`).
    """

    name: ClassVar[str] = "unrolled"
    bias: ClassVar[str] = "None over the whole run; with a window, what happened before it is left out."
    memory_formula: ClassVar[str] = "ceil(K / C) states, C graphs"
    cost_formula: ClassVar[str] = "T + 2 K + (K - L) + 1"
    where: ClassVar[str] = "K window, C steps of a piece (the square root of K by default), L those of the last piece"
    window: Annotated[int, Ge(1)] | None = None
    checkpoint_steps: Annotated[int, Ge(0)] = 0
    backend: Backend = "own"

    def __post_init__(self) -> None:
        if self.window is not None:
            check_count("window", self.window)
        check_count("checkpoint_steps", self.checkpoint_steps, 0)
        if self.backend not in get_args(Backend):
            raise ConfigError(f"backend must be one of {', '.join(get_args(Backend))}, got {self.backend!r}")
        if self.backend == "higher" and self.checkpoint_steps:
            raise ConfigError(
                f"backend higher keeps the whole window and knows no checkpoints, got checkpoint_steps={self.checkpoint_steps};"
                " use backend own"
            )

    def memory(self, steps: int, columns: int) -> Memory:
        """Return the states that begin a piece, and one piece's graphs."""
        window, piece = self._pieces(steps)
        return Memory(math.ceil(window / piece), piece)

    def cost(self, steps: int, columns: int) -> float:
        """Return T steps, a Hessian-vector product a step of the window, the steps that are repeated, and the outer gradient."""
        window, piece = self._pieces(steps)
        repeated = (math.ceil(window / piece) - 1) * piece
        return STEP * (steps + repeated) + HVP * window + STEP

    def compute(self, problem: Problem) -> Hyperparameters:
        """Return the estimate.

        Raises:
            ConfigError: the window is longer than the run, or `higher` cannot run this inner step.
        """
        if self.window is not None and self.window > problem.steps:
            raise ConfigError(f"window must be at most the number of batches, {problem.steps}, got {self.window}")
        window, piece = self._pieces(problem.steps)
        return _by_higher(problem, window) if self.backend == "higher" else _pulled_back(problem, window, piece)

    def _pieces(self, steps: int) -> tuple[int, int]:
        """Return K and C."""
        window = steps if self.window is None else self.window
        if self.backend == "higher":
            return window, window
        return window, min(window, self.checkpoint_steps or math.isqrt(window - 1) + 1)


def _pulled_back(problem: Problem, window: int, piece: int) -> Hyperparameters:
    """Return the derivative through the last `window` steps, `piece` of them at a time."""
    steps = problem.steps
    starts = range(steps - window, steps, piece)
    state, kept = problem.advance(problem.state0, 0, starts[0]), []
    for start in starts[:-1]:
        kept.append((start, state))
        state = problem.advance(state, start, start + piece)
    total: Hyperparameters | None = None
    cotangent: Any = None
    for start, begin in [*kept, (starts[-1], state)][::-1]:
        found, cotangent = _through(problem, begin, start, min(start + piece, steps), cotangent, start > starts[0])
        total = found if total is None else {name: value + found[name] for name, value in total.items()}
    assert total is not None
    return total


def _through(
    problem: Problem, begin: Any, start: int, stop: int, cotangent: Leaves | None, further: bool
) -> tuple[Hyperparameters, Leaves | None]:
    """Return the cotangents of the hyperparameters, and of the state at `start` if one must go further back.

    Args:
        problem: the run.
        begin: the state at `start`.
        start, stop: the piece's steps.
        cotangent: of the state at `stop`; None for the piece that ends the run.
        further: whether an earlier piece is waiting for the state's cotangent, which costs Hessian-vector products at the first step.
    """
    values, rebuild = floating(begin)

    def piece(hyperparameters: Hyperparameters, leaves: Leaves) -> Leaves | Tensor:
        state = problem.advance(rebuild(leaves), start, stop, hyperparameters)
        return problem.outer(state) if cotangent is None else floating(state)[0]

    if further:
        found: Any = vjp(piece, problem.hyperparameters, values)
    else:
        found = vjp(lambda hyperparameters: piece(hyperparameters, values), problem.hyperparameters)
    output, pull = found
    back = pull(torch.ones_like(output) if cotangent is None else cotangent)
    return back[0], back[1] if further else None


def _by_higher(problem: Problem, window: int) -> Hyperparameters:
    """Return the same derivative with the steps of `higher`."""
    inner = problem.inner_step
    if not isinstance(inner, GradientStep):
        name = getattr(inner, "__name__", type(inner).__name__)
        raise ConfigError(f"backend higher runs an inner step made by gradient_step, got {name!r}; use backend own")
    rule = inner.rule
    higher_backend.check_rule(rule)
    higher_backend.check_theta(rule, problem.hyperparameters)
    inner.check(problem.hyperparameters)
    values = {name: value.clone().requires_grad_() for name, value in problem.hyperparameters.items()}
    state = problem.state0
    for t in range(problem.steps):
        loss = functools.partial(_on_batch, inner.loss, problem.batches[t])
        state, _ = higher_backend.rule_step(rule, {**rule.hyperparameters, **values}, state, loss, t >= problem.steps - window)
    with torch.enable_grad():
        found = torch.autograd.grad(problem.outer(state), list(values.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(values, found, strict=True))


def _on_batch(loss: Loss, batch: Any, params: Params) -> Tensor:
    return loss(params, batch)
