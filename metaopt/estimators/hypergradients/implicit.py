"""Hypergradients of a fixed point: the implicit function theorem in place of the run that led there.

A fixed point p = F(p, lambda) of the inner step moves with the hyperparameters lambda by (I - A)^-1 B, where A = dF/dp and
B = dF/dlambda. The estimate is the outer loss's gradient v times that, computed from the left: solve (I - A)^T x = v, return B^T x. For a
gradient step of size alpha, I - A is alpha times the Hessian of the inner loss, B is -alpha times its mixed derivative, and K terms of the
Neumann series are what differentiating K gradient steps at the optimum would give.

Source: Lorraine, Vicol, Duvenaud, 2020, "Optimizing millions of hyperparameters by implicit differentiation" (1911.02590; the Neumann
series); Pedregosa, 2016, "Hyperparameter optimization with approximate gradient" (1602.02355; conjugate gradients); Grazzi et al., 2020,
"On the iteration complexity of hypergradient computation" (2006.16218; the fixed-point form, which is used here).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.func import vjp, vmap

from metaopt.errors import ConfigError
from metaopt.estimators.hypergradients.gradient_step import GradientStep
from metaopt.estimators.hypergradients.problem import Hyperparameters, Leaves, Problem
from metaopt.estimators.hypergradients.recipe import HVP, STEP, HypergradientRecipe, Memory, check_count
from metaopt.estimators.tangents import floating, pushed

__all__ = ["Implicit"]

Solver = Literal["neumann", "cg"]
Pull = Callable[[Leaves], Leaves]  # x -> (I - A)^T x

_FIXED_POINT_MOVERS = ("weight_decay",)  # of a hand-made rule: all its other hyperparameters say how to get there, not where
_PROBES = 3  # directions in which a hyperparameter is tried
_ROUNDING = 1e4  # multiples of the machine's precision that count as nothing


@dataclass(frozen=True)
class Implicit(HypergradientRecipe):
    """The derivative of the point where training ends; the T steps only lead there, the last one is differentiated.

    Hyperparameters that do not move the fixed point are refused: in a `gradient_step` all those of the rule but its weight decay, in any
    other inner step those whose derivative is 0 or is the step itself, as that of a step size is. A momentum in an inner step of one's
    own is not recognised unless the run has converged.

    Attributes:
        solver: "neumann" for any contraction; "cg" where dF/dstate is symmetric, as for a gradient step without accumulators.
        steps: terms of the series, or most iterations of conjugate gradients.
        step_size: omega of the iteration x += omega (v - (I - A)^T x), which is the plain series at 1. Of "neumann" alone.
        damping: added to I - A; shrinks the estimate, and keeps nearly flat directions from taking it over.
    """

    name: ClassVar[str] = "implicit"
    bias: ClassVar[str] = "Inner training that has not converged, a series cut off after K terms, and damping; blind to step sizes."
    memory_formula: ClassVar[str] = "4 states, 1 graph"
    cost_formula: ClassVar[str] = "T + 2 K + 6 N + 2"
    where: ClassVar[str] = "K steps of the solver; 6 more with cg; 6 a hyperparameter tensor, not a column, and none with gradient_step"
    solver: Solver = "neumann"
    steps: Annotated[int, Ge(1)] = 20
    step_size: Annotated[float, Gt(0)] = 1.0
    damping: Annotated[float, Ge(0)] = 0.0

    def __post_init__(self) -> None:
        if self.solver not in get_args(Solver):
            raise ConfigError(f"solver must be one of {', '.join(get_args(Solver))}, got {self.solver!r}")
        check_count("steps", self.steps)
        if not self.step_size > 0:
            raise ConfigError(f"step_size must be > 0, got {self.step_size!r}")
        if self.solver == "cg" and self.step_size != 1.0:
            raise ConfigError(f"step_size belongs to solver neumann, got {self.step_size!r} with cg; leave it at 1.0")
        if not self.damping >= 0:
            raise ConfigError(f"damping must be >= 0, got {self.damping!r}")

    def memory(self, steps: int, columns: int) -> Memory:
        """Return the solver's vectors and the graph of the one step that is differentiated."""
        return Memory(4, 1)

    def cost(self, steps: int, columns: int) -> float:
        """Return T steps and one more, a product for each step of the solver and for the trials, and the outer gradient."""
        symmetry = 3 if self.solver == "cg" else 0
        return STEP * (steps + 1) + HVP * (self.steps + _PROBES * columns + symmetry) + STEP

    def compute(self, problem: Problem) -> Hyperparameters:
        """Return the estimate.

        Raises:
            ConfigError: a hyperparameter that does not move the fixed point; for "cg", dF/dstate is not symmetric, or I - A not positive.
        """
        if isinstance(problem.inner_step, GradientStep):
            for name in problem.hyperparameters:
                if name not in _FIXED_POINT_MOVERS:
                    raise _immovable(name)
        state = problem.advance(problem.state0, 0, problem.steps)
        gradient = problem.outer_gradient(state)
        values, rebuild = floating(state)

        def step(hyperparameters: Hyperparameters, leaves: Leaves) -> Leaves:
            return floating(problem.step(rebuild(leaves), problem.steps - 1, hyperparameters))[0]

        if not isinstance(problem.inner_step, GradientStep):
            _check_moves(step, problem.hyperparameters, values)
        transposed = vjp(step, problem.hyperparameters, values)[1]

        def pull(x: Leaves) -> Leaves:
            return tuple((1 + self.damping) * one - back for one, back in zip(x, transposed(x)[1], strict=True))

        if self.solver == "cg":
            _check_symmetric(pull, values)
            solution = _conjugate_gradients(pull, gradient, self.steps)
        else:
            solution = _neumann(pull, gradient, self.steps, self.step_size)
        found: Hyperparameters = transposed(solution)[0]
        return found


def _neumann(pull: Pull, gradient: Leaves, steps: int, size: float) -> Leaves:
    """Return omega times the sum of the first `steps` powers of (1 - omega (I - A)^T), applied to the gradient."""
    term = total = gradient
    for _ in range(steps - 1):
        term = tuple(one - size * back for one, back in zip(term, pull(term), strict=True))
        total = tuple(one + more for one, more in zip(total, term, strict=True))
    return tuple(size * one for one in total)


def _conjugate_gradients(pull: Pull, gradient: Leaves, steps: int) -> Leaves:
    """Return the solution of (I - A)^T x = gradient, after at most `steps` iterations."""
    solution: Leaves = tuple(torch.zeros_like(one) for one in gradient)
    residual = direction = gradient
    size = first = _dot(residual, residual)
    for _ in range(steps):
        if size <= torch.finfo(size.dtype).eps ** 2 * first:
            break
        image = pull(direction)
        curvature = _dot(direction, image)
        if curvature <= 0:
            raise ConfigError(
                f"solver cg met a direction of curvature {float(curvature):.3g} in I - dF/dstate, which must be positive: train closer to"
                " a minimum, raise damping, or use solver neumann"
            )
        alpha = size / curvature
        solution = tuple(one + alpha * more for one, more in zip(solution, direction, strict=True))
        residual = tuple(one - alpha * more for one, more in zip(residual, image, strict=True))
        smaller = _dot(residual, residual)
        direction = tuple(one + (smaller / size) * more for one, more in zip(residual, direction, strict=True))
        size = smaller
    return solution


def _check_symmetric(pull: Pull, like: Leaves) -> None:
    """Raise if two fixed random vectors tell I - A from its transpose."""
    u, w = (_random(like, seed) for seed in (1, 2))
    one, other = _dot(w, pull(u)), _dot(u, pull(w))
    scale = (_dot(u, u) * _dot(pull(w), pull(w))).sqrt()
    if abs(one - other) > torch.finfo(scale.dtype).eps ** 0.5 * scale:
        raise ConfigError(
            "solver cg needs a symmetric dF/dstate, as that of a plain gradient step, and this inner_step's is not (an accumulator, a"
            " preconditioner or a clip does that); use solver neumann"
        )


def _check_moves(step: Callable[[Hyperparameters, Leaves], Leaves], hyperparameters: Hyperparameters, values: Leaves) -> None:
    """Raise if a hyperparameter does not move the fixed point: its derivative is 0, or proportional to what is left of the step.

    A step size alpha enters as F = p + alpha d(p), so that alpha dF/dalpha, or dF/dlog alpha, is the step F - p itself on the leaves
    where it acts.
    """
    eps = max(torch.finfo(leaf.dtype).eps for leaf in values)
    left = [after - before for after, before in zip(step(hyperparameters, values), values, strict=True)]
    nothing = _ROUNDING * eps * (1 + _size(values))
    for name, value in hyperparameters.items():
        tries = torch.stack([value, torch.ones_like(value), _random((value,), 3)[0]])

        def along(direction: Tensor, name: str = name) -> Leaves:
            directions = {other: direction if other == name else torch.zeros_like(one) for other, one in hyperparameters.items()}
            moved, _ = pushed(lambda h: (step(h, values), ()), (hyperparameters,), (directions,))
            found: Leaves = moved
            return found

        moved = vmap(along)(tries)
        if _size([one[2] for one in moved]) <= nothing or any(_same(left, [one[i] for one in moved], nothing, eps) for i in (0, 1)):
            raise _immovable(name)


def _same(left: list[Tensor], moved: list[Tensor], nothing: float, eps: float) -> bool:
    """Return whether `moved` is the step that is left, wherever it acts at all, and there is a step left to tell by."""
    there = [torch.where(one != 0, step, 0.0) for step, one in zip(left, moved, strict=True)]
    gap = _size([step - one for step, one in zip(there, moved, strict=True)])
    return _size(there) > nothing and gap <= eps**0.5 * _size(there)


def _immovable(name: str) -> ConfigError:
    return ConfigError(
        f"method implicit cannot tune {name!r}: it does not move the fixed point of inner_step, as a step size never does, so that there is"
        " no derivative to find; use unrolled, discounted_forward or forward_shared"
    )


def _random(like: Leaves, seed: int) -> Leaves:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(one.shape, generator=generator).to(dtype=one.dtype).to(one.device) for one in like)


def _size(leaves: Sequence[Tensor]) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(leaf)) for leaf in leaves))


def _dot(one: Leaves, other: Leaves) -> Tensor:
    total: Any = sum((a * b).sum() for a, b in zip(one, other, strict=True))
    found: Tensor = total
    return found
