"""All methods of a hypergradient behind one call, and the table that compares them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.estimators.hypergradients.forward import DiscountedForward, ForwardShared
from metaopt.estimators.hypergradients.implicit import Implicit
from metaopt.estimators.hypergradients.problem import Batches, Hyperparameters, InnerStep, OuterLoss, Problem
from metaopt.estimators.hypergradients.recipe import HypergradientRecipe
from metaopt.estimators.hypergradients.reverse import OneStep, Unrolled
from metaopt.registry import Registry

__all__ = ["METHODS", "hypergradient", "table"]

_BUNDLED: tuple[type[HypergradientRecipe], ...] = (OneStep, DiscountedForward, Unrolled, ForwardShared, Implicit)
METHODS: Registry[type[HypergradientRecipe]] = Registry(
    "hypergradient method", "metaopt.hypergradients", {recipe.name: recipe for recipe in _BUNDLED}
)


def hypergradient(
    method: str | HypergradientRecipe,
    inner_step: InnerStep,
    state0: Any,
    batches: Batches,
    outer_loss: OuterLoss,
    hyperparameters: Mapping[str, Tensor],
) -> Hyperparameters:
    """Return an estimate of d outer_loss(state after the last step) / d hyperparameters.

    Nothing that is passed is changed, and the result carries no graph. Entries that are not finite are returned as they are.

    Args:
        method: a name in `METHODS` (its default options), or a recipe: `OneStep()`, `DiscountedForward(discount)`,
            `Unrolled(window, checkpoint_steps, backend)`, `ForwardShared(segments)`, `Implicit(solver, steps, step_size, damping)`.
        inner_step: pure function (state, batch, hyperparameters) -> state of the same structure; gradients inside by `torch.func.grad`.
            `gradient_step(loss, rule)` makes one.
        state0: weights and accumulators before the first step, a pytree of tensors; leaves that are not floating are carried along.
        batches: whatever has a length T >= 1 and a batch at each index.
        outer_loss: pure function state -> 0-d tensor.
        hyperparameters: floating tensors by name, of any shape; for "forward_shared" with a leading axis of segments.

    Returns:
        Tensors by name, of the hyperparameters' shapes, dtypes and devices.

    Raises:
        ConfigError: an unknown method, or input that it cannot use; the message names the field and what to do.
    """
    if isinstance(method, str):
        recipe = METHODS[method]()
    elif isinstance(method, HypergradientRecipe):
        recipe = method
    else:
        raise ConfigError(f"method must be one of {', '.join(METHODS)} or a recipe such as Unrolled(window=20), got {method!r}")
    problem = Problem.checked(inner_step, state0, batches, outer_loss, hyperparameters)
    with torch.no_grad():  # derivatives are those of torch.func; what the functions close over gets no graph
        found = recipe.compute(problem)
    return {name: value.detach() for name, value in found.items()}


def table() -> str:
    """Return a Markdown table of the bundled methods: bias, memory and cost as their recipes state them."""
    lines = ["| method | bias | memory | cost | where |", "|---|---|---|---|---|"]
    for name, recipe in METHODS.items():
        cells = (f"`{name}`", recipe.bias, recipe.memory_formula, recipe.cost_formula, recipe.where)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
