"""Hypergradients by forward mode: the state's tangents travel along with the run, so that memory does not grow with its length.

Legend: T inner steps, N columns (entries of all hyperparameters), S segments, Z [N, ...] tangents of the state.

With A = d step / d state and B = d step / d hyperparameters a step turns Z into A Z + B, and the estimate is the outer loss's gradient
times Z at the end. `torch.func.jvp` pushes a column, `torch.func.vmap` all of them.

Source: Franceschi et al., 2017, "Forward and reverse gradient-based hyperparameter optimization" (1703.01785); Donini et al., 2020,
"MARTHE: scheduling the learning rate via online hypergradients" (1910.08525; the discount); Micaelli, Storkey, 2021, "Gradient-based
hyperparameter optimization over long horizons" (2007.07869; sharing). Differs: derivatives by jvp, for any step, not by hand; no clamps.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.estimators.hypergradients.problem import Hyperparameters, Leaves, Problem, contracted, push, unit_directions
from metaopt.estimators.hypergradients.recipe import HVP, STEP, HypergradientRecipe, Memory, check_count
from metaopt.estimators.tangents import floating

__all__ = ["DiscountedForward", "ForwardShared", "segment_of"]


@dataclass(frozen=True)
class DiscountedForward(HypergradientRecipe):
    """Tangents of the whole run whose past is discounted at every step: Z becomes discount * A Z + B.

    Attributes:
        discount: 1 is the exact derivative (RTHO on hyperparameters that do not change meanwhile), 0 that of the last step alone
            (hypergradient descent on the outer loss), and MARTHE lies between. [0, 1].
    """

    name: ClassVar[str] = "discounted_forward"
    bias: ClassVar[str] = "None at discount 1; below it, what a step does to later ones is weighed down by discount^distance."
    memory_formula: ClassVar[str] = "N states, N graphs"
    cost_formula: ClassVar[str] = "T + 2 N D + 1"
    where: ClassVar[str] = "D = 1 if discount is 0, else T"
    discount: Annotated[float, Ge(0), Le(1)] = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.discount <= 1.0:
            raise ConfigError(f"discount must be in [0, 1], got {self.discount!r}")

    def memory(self, steps: int, columns: int) -> Memory:
        """Return one tangent of the state, and of one step's activations, a column; T does not matter."""
        return Memory(columns, columns)

    def cost(self, steps: int, columns: int) -> float:
        """Return T steps, a Hessian-vector product for each column and differentiated step, and the outer gradient."""
        return STEP * steps + HVP * columns * (steps if self.discount else 1) + STEP

    def compute(self, problem: Problem) -> Hyperparameters:
        """Return the estimate."""
        first = 0 if self.discount else problem.steps - 1  # at discount 0 the past is not computed to be thrown away
        directions = unit_directions(problem.hyperparameters)
        state = problem.advance(problem.state0, 0, first)
        tangents = _zeros(problem, len(next(iter(directions.values()))))
        for t in range(first, problem.steps):
            decayed = tangents if self.discount == 1.0 else tuple(self.discount * tangent for tangent in tangents)
            state, tangents = push(problem, state, t, problem.hyperparameters, decayed, directions)
        derivative_N = contracted(problem.outer_gradient(state), tangents)
        return _shaped(derivative_N, problem.hyperparameters)


@dataclass(frozen=True)
class ForwardShared(HypergradientRecipe):
    """Schedules that are constant on S contiguous segments: entry t S // T of each hyperparameter [S, ...] acts at step t of T.

    The columns of a segment are carried from its first step on, not before.

    Attributes:
        segments: S, in [1, T]; None takes the leading axis of the hyperparameters.
    """

    name: ClassVar[str] = "forward_shared"
    bias: ClassVar[str] = "None: exact for a schedule that is constant on each segment."
    memory_formula: ClassVar[str] = "N states, N graphs"
    cost_formula: ClassVar[str] = "T + N T (S + 1) / S + 1"
    where: ClassVar[str] = "S segments, N = S times the hyperparameters of one segment; exact where S divides T"
    segments: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        if self.segments is not None:
            check_count("segments", self.segments)

    def memory(self, steps: int, columns: int) -> Memory:
        """Return one tangent of the state, and of one step's activations, a column; T does not matter."""
        return Memory(columns, columns)

    def cost(self, steps: int, columns: int) -> float:
        """Return T steps, a Hessian-vector product for each column that is active at a step, and the outer gradient.

        Raises:
            ConfigError: `segments` is None, so that the number of segments is not known.
        """
        if self.segments is None:
            raise ConfigError("the cost of forward_shared depends on its segments, got None; give ForwardShared(segments=...)")
        active = sum(segment_of(t, steps, self.segments) + 1 for t in range(steps)) * columns / self.segments
        return STEP * steps + HVP * active + STEP

    def compute(self, problem: Problem) -> Hyperparameters:
        """Return the estimate.

        Raises:
            ConfigError: a hyperparameter's leading axis is not S, or there are more segments than steps.
        """
        segments = self._checked(problem)
        rows = [{name: value[i] for name, value in problem.hyperparameters.items()} for i in range(segments)]
        directions = unit_directions(rows[0])
        width = len(next(iter(directions.values())))
        state, tangents, begun = problem.state0, _zeros(problem, 0), 0
        along = directions
        for t in range(problem.steps):
            segment = segment_of(t, problem.steps, segments)
            if segment == begun:
                begun += 1
                tangents = tuple(torch.cat([old, new]) for old, new in zip(tangents, _zeros(problem, width), strict=True))
                past = {name: block.new_zeros((len(tangents[0]) - width, *block.shape[1:])) for name, block in directions.items()}
                along = {name: torch.cat([past[name], block]) for name, block in directions.items()}
            state, tangents = push(problem, state, t, rows[segment], tangents, along)
        derivative_N = contracted(problem.outer_gradient(state), tangents).reshape(segments, width)
        parts = [_shaped(derivative_N[i], rows[i]) for i in range(segments)]
        return {name: torch.stack([part[name] for part in parts]) for name in problem.hyperparameters}

    def _checked(self, problem: Problem) -> int:
        """Return S."""
        segments = self.segments
        for name, value in problem.hyperparameters.items():
            if segments is None and value.ndim:
                segments = len(value)  # the first one's
            if value.ndim == 0 or len(value) != segments:
                wanted = "segments" if segments is None else f"{segments} segments"
                raise ConfigError(
                    f"hyperparameters[{name!r}] must have a leading axis of {wanted} for forward_shared, got shape {list(value.shape)}"
                )
        assert segments is not None
        if not 1 <= segments <= problem.steps:
            raise ConfigError(f"segments must be in [1, {problem.steps}], the number of batches, got {segments}")
        return segments


def segment_of(t: int, steps: int, segments: int) -> int:
    """Return the segment of step `t` of `steps`."""
    return t * segments // steps


def _zeros(problem: Problem, columns: int) -> Leaves:
    return tuple(leaf.new_zeros((columns, *leaf.shape)) for leaf in floating(problem.state0)[0])


def _shaped(derivative_N: Tensor, hyperparameters: Hyperparameters) -> Hyperparameters:
    """Return a vector of columns by name, each in its hyperparameter's shape and dtype."""
    parts = torch.split(derivative_N, [value.numel() for value in hyperparameters.values()])
    return {name: part.reshape(value.shape).to(value.dtype) for (name, value), part in zip(hyperparameters.items(), parts, strict=True)}
