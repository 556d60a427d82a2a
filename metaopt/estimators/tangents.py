"""What forward-mode estimators share: carries and thetas as the differentiable part of a step, and windows cut where episodes begin.

Legend: M single particles, W window steps, P meta-parameters.

A forward-mode estimator wraps the learner in one whose carry holds the inner run's own carry and whatever is known of its derivative with
respect to theta, so that both restart, persist from window to window, and are saved together.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from metaopt import seeds
from metaopt.estimators.backprop import particle_mean
from metaopt.estimators.estimator import MetaGradient
from metaopt.estimators.evolution import mean_and_error
from metaopt.estimators.flat import unflatten
from metaopt.inner.particles import Pairs
from metaopt.learners.forward_mode import jvp
from metaopt.learners.learner import Carry
from metaopt.learners.update_rules import Theta

__all__ = ["floating", "prefixed", "pulled", "pushed", "signs", "summed_window", "unprefixed"]

Rebuild = Callable[[Sequence[Tensor]], Carry]


def floating(carry: Carry) -> tuple[tuple[Tensor, ...], Rebuild]:
    """Return the floating leaves of a carry, in order, and what makes a carry with others in their place."""
    leaves, spec = tree_flatten(carry)
    places = [i for i, leaf in enumerate(leaves) if leaf.is_floating_point()]

    def rebuild(values: Sequence[Tensor]) -> Carry:
        return _placed(leaves, spec, places, values)

    return tuple(leaves[i] for i in places), rebuild


def _placed(leaves: list[Any], spec: TreeSpec, places: list[int], values: Sequence[Tensor]) -> Carry:
    replaced = list(leaves)
    for place, value in zip(places, values, strict=True):
        replaced[place] = value
    carry: Carry = tree_unflatten(replaced, spec)
    return carry


def prefixed(**parts: Theta) -> Theta:
    """Return several dicts of tensors as one, each name below its part's."""
    return {f"{part}/{name}": value for part, tensors in parts.items() for name, value in tensors.items()}


def unprefixed(theta: Theta, part: str) -> Theta:
    """Return one part of what `prefixed` made."""
    return {name.removeprefix(f"{part}/"): value for name, value in theta.items() if name.startswith(f"{part}/")}


def pushed(function: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return (tangents of the first output, the second output) of a function of two outputs."""
    found: Any = jvp(function, primals, tangents, has_aux=True)
    return found[1], found[2]


def pulled(function: Callable[[Theta], Any], theta: Theta) -> tuple[Any, Callable[[Any], Theta], Any]:
    """Return (first output, what turns its cotangents into theta's, second output) of a function of two outputs."""
    found: Any = vjp(function, theta, has_aux=True)
    output, pull, aux = found
    return output, lambda cotangents: pull(cotangents)[0], aux


def signs(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return independent -1 and +1 of `shape`."""
    return 1.0 - 2.0 * seeds.randint(key, shape, 2).to(dtype)


def summed_window(
    pairs: Pairs,
    theta: Theta,
    window: int,
    clip: float | None,
    pieces: Iterator[tuple[Theta, int]],
    harvest: Callable[[Carry], tuple[Tensor, Carry]],
) -> MetaGradient:
    """Advance single particles by a window and return its meta-gradient.

    Args:
        pairs: the particles, of a learner whose carry adds up gradients.
        theta: meta-parameters of one particle, for their shapes.
        window: W.
        clip: largest size of an entry of a particle's gradient, or None.
        pieces: the stacked meta-parameters and the steps of each piece, asked for one at a time.
        harvest: returns the gradients [M, P] that a carry has added up since the last call, and the carry that starts afresh.
    """
    grad_MP, loss_M, nonfinite, diverged = torch.zeros(()), torch.zeros(()), 0, set[int]()
    for stacked, steps in pieces:
        seen = pairs.advance(stacked, steps)
        assert pairs.carry is not None
        piece_MP, pairs.carry = harvest(pairs.carry)
        grad_MP = grad_MP + piece_MP / window
        loss_M = loss_M + seen.loss.sum(0) / window
        nonfinite += seen.nonfinite
        diverged |= set(seen.diverged)
    mean_P, clipped, dropped = particle_mean(grad_MP, clip)
    mean, error = mean_and_error(loss_M)
    return MetaGradient(
        grad=unflatten(mean_P, theta),
        loss=mean,
        loss_se=error,
        nonfinite=max(nonfinite, dropped),
        diverged=len(diverged),
        inner_steps=pairs.pairs * window,
        sequential_steps=window,
        clipped_frac=clipped,
    )
