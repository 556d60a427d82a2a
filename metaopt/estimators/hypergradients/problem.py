"""One inner training run and what is asked about it, checked once; the small derivatives that every method is made of.

Legend: T inner steps, N columns (entries of all hyperparameters together).

A state is any pytree of tensors. Its floating leaves are differentiated, its other leaves (step counters, indices) are carried along.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves, tree_map, tree_structure

from metaopt.errors import ConfigError
from metaopt.estimators.tangents import floating, pushed

__all__ = ["Batches", "Hyperparameters", "InnerStep", "Leaves", "OuterLoss", "Problem", "contracted", "push", "unit_directions"]

Hyperparameters = dict[str, Tensor]
Leaves = tuple[Tensor, ...]  # the floating leaves of a state, in order
InnerStep = Callable[[Any, Any, Hyperparameters], Any]
OuterLoss = Callable[[Any], Tensor]


class Batches(Protocol):
    """What has a length and a batch at each index: a list, a tensor with a leading axis, a lazy loader."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Problem:
    """The run of which a hypergradient is wanted. Its tensors are detached from whatever graph they came with.

    Attributes:
        inner_step: pure function (state, batch, hyperparameters) -> state.
        state0: pytree of tensors.
        batches: T of them.
        outer_loss: pure function state -> 0-d tensor.
        hyperparameters: floating tensors by name.
    """

    inner_step: InnerStep
    state0: Any
    batches: Batches
    outer_loss: OuterLoss
    hyperparameters: Hyperparameters

    @staticmethod
    def checked(
        inner_step: InnerStep, state0: Any, batches: Batches, outer_loss: OuterLoss, hyperparameters: Mapping[str, Tensor]
    ) -> "Problem":
        """Return the problem.

        Raises:
            ConfigError: no batch, no hyperparameter, or a leaf that is not the tensor it must be.
        """
        if not len(batches):
            raise ConfigError("batches is empty; a hypergradient needs at least one inner step")
        if not hyperparameters:
            raise ConfigError("hyperparameters is empty; give at least one tensor by name")
        for name, value in hyperparameters.items():
            if not isinstance(value, Tensor) or not value.is_floating_point():
                what = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else repr(value)
                raise ConfigError(f"hyperparameters[{name!r}] must be a floating tensor, got {what}; use torch.tensor({name}, dtype=...)")
        for leaf in tree_leaves(state0):
            if not isinstance(leaf, Tensor):
                raise ConfigError(f"state0 must hold tensors only, got {leaf!r}; wrap numbers in torch.tensor")
        if not floating(state0)[0]:
            raise ConfigError("state0 has no floating tensor; there is nothing to differentiate")
        values = {name: value.detach() for name, value in hyperparameters.items()}
        return Problem(inner_step, tree_map(torch.Tensor.detach, state0), batches, outer_loss, values)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.batches)

    def step(self, state: Any, t: int, hyperparameters: Hyperparameters | None = None) -> Any:
        """Return the state after inner step `t` (the first one is 0), with other hyperparameters if some are given.

        Raises:
            ConfigError: `inner_step` returned something else than a state like the one it was given.
        """
        after = self.inner_step(state, self.batches[t], self.hyperparameters if hyperparameters is None else hyperparameters)
        if tree_structure(after) != tree_structure(state) or _kinds(after) != _kinds(state):
            raise ConfigError(f"inner_step must return a state like the one that it was given, {_difference(after, state)} at step {t}")
        return after

    def advance(self, state: Any, start: int, stop: int, hyperparameters: Hyperparameters | None = None) -> Any:
        """Return the state after inner steps start, ..., stop - 1."""
        for t in range(start, stop):
            state = self.step(state, t, hyperparameters)
        return state

    def outer(self, state: Any) -> Tensor:
        """Return the outer loss of a state.

        Raises:
            ConfigError: it is not a 0-d tensor.
        """
        loss = self.outer_loss(state)
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            got = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            raise ConfigError(f"outer_loss must return a 0-d tensor, got {got}; reduce it, for instance with .mean()")
        return loss

    def outer_gradient(self, state: Any) -> Leaves:
        """Return the derivatives of the outer loss with respect to the floating leaves of a state."""
        values, rebuild = floating(state)
        found: Leaves = grad(lambda leaves: self.outer(rebuild(leaves)))(values)
        return found


def _kinds(state: Any) -> dict[str, str]:
    """Return what each leaf is, by its place."""
    return {
        f"state{keystr(path)}": f"{leaf.dtype} {list(leaf.shape)}" if isinstance(leaf, Tensor) else repr(leaf)
        for path, leaf in tree_flatten_with_path(state)[0]
    }


def _difference(after: Any, before: Any) -> str:
    """Return the first difference of two states in words."""
    new, old = _kinds(after), _kinds(before)
    for place in [*old, *new]:
        if new.get(place) != old.get(place):
            return f"got {new.get(place, 'nothing')} for {place}, which was {old.get(place, 'not there')}"
    return "got containers of other types"


def unit_directions(hyperparameters: Hyperparameters) -> Hyperparameters:
    """Return the N unit vectors of the space of all hyperparameters, as tensors [N, ...] by name."""
    columns, found, place = sum(value.numel() for value in hyperparameters.values()), {}, 0
    for name, value in hyperparameters.items():
        block = torch.zeros(columns, value.numel(), dtype=value.dtype, device=value.device)
        block[place : place + value.numel()] = torch.eye(value.numel(), dtype=value.dtype, device=value.device)
        found[name] = block.reshape(columns, *value.shape)
        place += value.numel()
    return found


def push(
    problem: Problem, state: Any, t: int, hyperparameters: Hyperparameters, tangents: Leaves, directions: Hyperparameters
) -> tuple[Any, Leaves]:
    """Return (state, tangents) after inner step `t`.

    Args:
        problem: the run.
        state: before the step.
        t: which step.
        hyperparameters: those of this step.
        tangents: of the floating leaves of the state, each [N, ...].
        directions: of the hyperparameters, each [N, ...].
    """
    values, rebuild = floating(state)

    def step(leaves: Leaves, values_of_hyperparameters: Hyperparameters) -> tuple[Leaves, Any]:
        after = problem.step(rebuild(leaves), t, values_of_hyperparameters)
        return floating(after)[0], after

    def one(tangent: Leaves, direction: Hyperparameters) -> tuple[Leaves, Any]:
        found: tuple[Leaves, Any] = pushed(step, (values, hyperparameters), (tangent, direction))
        return found

    moved, repeated = vmap(one)(tangents, directions)
    # Forward mode promotes a float32 number times a Python one to float64.
    kept = tuple(new.to(old.dtype) for new, old in zip(moved, tangents, strict=True))
    return tree_map(lambda leaf: leaf[0], repeated), kept


def contracted(gradient: Leaves, tangents: Leaves) -> Tensor:
    """Return the derivative of the outer loss [N] along each column: its gradient times the tangents [N, ...], summed over leaves."""
    parts = [tangent.reshape(len(tangent), part.numel()) @ part.reshape(-1) for part, tangent in zip(gradient, tangents, strict=True)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
