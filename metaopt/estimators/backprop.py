"""Meta-gradients by reverse-mode differentiation through inner training: truncated, and of whole episodes.

Legend: M single particles (twice the number of antithetic pairs that an evolution strategy would have), W window steps, T horizon, P
meta-parameters. Every particle has a copy of theta of its own, so that gradients are known, and clipped, particle by particle.

A whole episode would keep T steps of activations. Instead the forward pass keeps one carry every C steps, and the backward pass repeats C
steps at a time: memory of T / C carries and C steps, for one more forward pass.

Source: Werbos, 1990, "Backpropagation through time"; Williams, Peng, 1990 (truncation); Griewank, Walther, 2000, "Revolve" (checkpoints;
differs: one level, evenly spaced); Metz et al., 2021, "Gradients are not all you need" (why clipping is needed).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from metaopt.errors import ConfigError
from metaopt.estimators.estimator import MetaGradient, check_differentiable
from metaopt.estimators.evolution import mean_and_error
from metaopt.estimators.flat import unflatten
from metaopt.inner.particles import Episodes, MakeStep, Pairs, Window
from metaopt.inner.step import training_step
from metaopt.learners.learner import Carry, Learner
from metaopt.learners.update_rules import Theta

__all__ = ["Backprop", "FullBackprop", "TruncatedBackprop", "particle_mean"]

Backend = Literal["own", "higher"]


def particle_mean(grad_MP: Tensor, clip: float | None) -> tuple[Tensor, float, int]:
    """Return the mean of the particles' gradients [P], the share of their entries that were clipped, and how many particles were left out.

    A particle with an entry that is not finite is left out, because its other entries are as wrong; if none is left, the mean is nan.

    Args:
        grad_MP: a gradient for each particle.
        clip: largest size of an entry, or None.
    """
    usable_M = torch.isfinite(grad_MP).all(1)
    count = int(usable_M.sum())
    kept_MP = torch.where(usable_M[:, None], grad_MP, 0.0)
    clipped = 0.0
    if clip is not None:
        clipped = float(((kept_MP.abs() > clip) & usable_M[:, None]).double().sum()) / max(1, count * grad_MP.shape[1])
        kept_MP = kept_MP.clamp(-clip, clip)
    mean_P = kept_MP.sum(0) / count if count else torch.full_like(grad_MP[0], math.nan)
    return mean_P, clipped, len(usable_M) - count


class Backprop:
    """An estimator with its particles.

    Args:
        learner: what is meta-trained, differentiable in theta and in its carry.
        episodes: where the particles' tasks come from.
        particles: M.
        window: W, inner steps per estimate; None for whole episodes, begun afresh at every estimate.
        device: where the runs live.
        objective: "mean" over the steps of a window or an episode, or its "last" loss.
        clip: largest size of an entry of a particle's gradient, or None.
        checkpoint_steps: C, for whole episodes; 0 for the square root of the longest horizon.
        compiled: compile the inner step.
        make_step: what builds the inner step.
    """

    def __init__(
        self,
        learner: Learner,
        episodes: Episodes,
        particles: int,
        window: int | None,
        device: str = "cpu",
        objective: str = "mean",
        clip: float | None = None,
        checkpoint_steps: int = 0,
        compiled: bool = False,
        make_step: MakeStep = training_step,
    ) -> None:
        if objective not in ("mean", "last"):
            raise ConfigError(f"objective must be mean or last, got {objective!r}")
        self.window, self.objective, self.clip, self.checkpoint_steps = window, objective, clip, checkpoint_steps
        self.pairs = Pairs(learner, episodes, particles, device, compiled, members=1, make_step=make_step)

    def estimate(self, theta: Theta, outer_step: int) -> MetaGradient:
        """Return the meta-gradient of one window, or of whole episodes, at `theta`; advances the particles.

        A pure function of (theta, the particles' state).
        """
        rows = {name: value.detach().expand(self.pairs.pairs, *value.shape).clone().requires_grad_() for name, value in theta.items()}
        with torch.enable_grad():
            losses, grads, windows = self._window(rows) if self.window is not None else self._episode(rows)
        self.pairs.detach()
        grad_MP = torch.cat([grad.reshape(self.pairs.pairs, -1) for grad in grads], 1)
        mean_P, clipped, dropped = particle_mean(grad_MP, self.clip)
        diverged = {pair for window in windows for pair in window.diverged}
        mean, error = mean_and_error(losses)
        return MetaGradient(
            grad=unflatten(mean_P, theta),
            loss=mean,
            loss_se=error,
            nonfinite=max(dropped, *(window.nonfinite for window in windows)),
            diverged=len(diverged),
            inner_steps=sum(int(window.valid.sum()) for window in windows),
            sequential_steps=sum(len(window.valid) for window in windows),
            clipped_frac=clipped,
        )

    def _weighted(self, window: Window, start: int, count_M: Tensor) -> Tensor:
        """Return the part [M] of each particle's objective that falls into a window which begins at step `start`."""
        valid = window.valid.to(window.loss.device)
        if self.objective == "last":
            step = start + torch.arange(len(valid), device=valid.device)[:, None]
            return torch.where(valid & (step == count_M - 1), window.loss, 0.0).sum(0)
        return torch.where(valid, window.loss, 0.0).sum(0) / count_M

    def _window(self, rows: Theta) -> tuple[Tensor, list[Tensor], list[Window]]:
        """Return objectives [M], their gradients for each entry of theta, and the window."""
        assert self.window is not None
        seen = self.pairs.advance(rows, self.window)
        losses = self._weighted(seen, 0, seen.valid.sum(0).to(seen.loss.device))
        return losses.detach(), _derivatives([losses], [torch.ones_like(losses)], list(rows.values())), [seen]

    def _episode(self, rows: Theta) -> tuple[Tensor, list[Tensor], list[Window]]:
        """Return the same of whole episodes: forward in chunks without a graph, then backward, each chunk repeated with one."""
        pairs, longest = self.pairs, self.pairs.longest_next()
        chunk = self.checkpoint_steps or math.ceil(math.sqrt(longest))
        pairs.restart(rows)
        begun = pairs.carry  # with its graph: initial carries may depend on theta
        lengths = list(pairs.length)  # a particle that diverges goes on to its horizon, at the cap
        count_M = torch.tensor(lengths, device=pairs.device)
        starts = range(0, longest, chunk)
        kept: list[tuple[Carry, list[int]]] = []
        windows: list[Window] = []
        with torch.no_grad():
            pairs.detach()
            for start in starts:
                assert pairs.carry is not None
                kept.append((pairs.carry, list(pairs.clock)))
                pairs.length = list(lengths)
                windows.append(pairs.advance(rows, min(chunk, longest - start), endless=False))
        after = (pairs.carry, list(pairs.clock), list(pairs.length))
        losses = torch.stack([self._weighted(w, start, count_M) for w, start in zip(windows, starts, strict=True)]).sum(0)

        thetas = list(rows.values())
        grads = [torch.zeros_like(value) for value in thetas]
        adjoint: list[Tensor] = []  # of the floating leaves of the carry after the chunk
        for start, (carry, clock) in reversed(list(zip(starts, kept, strict=True))):
            pairs.carry = tree_map(lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), carry)
            pairs.clock, pairs.length = clock, list(lengths)
            inputs = _floating(pairs.carry)
            part = self._weighted(pairs.advance(rows, min(chunk, longest - start), endless=False), start, count_M)
            outputs = [part, *_floating(pairs.carry)] if adjoint else [part]
            found = _derivatives(outputs, [torch.ones_like(part), *adjoint], [*thetas, *inputs])
            grads = [total + new for total, new in zip(grads, found, strict=False)]
            adjoint = found[len(thetas) :]
        found = _derivatives(_floating(begun), adjoint, thetas)
        grads = [total + new for total, new in zip(grads, found, strict=True)]
        pairs.carry, pairs.clock, pairs.length = after
        return losses, grads, windows

    def state(self) -> dict[str, Any]:
        """Return all that the next estimate depends on besides theta: nested dicts of tensors and lists of integers."""
        return {"pairs": self.pairs.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.pairs.load(state["pairs"])


def _floating(carry: Carry | None) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(carry) if leaf.is_floating_point()]


def _derivatives(outputs: list[Tensor], cotangents: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Return the vector-Jacobian products for every input, zeros where nothing depends on it."""
    tracked = [(out, cotangent) for out, cotangent in zip(outputs, cotangents, strict=True) if out.requires_grad]
    if not tracked:
        return [torch.zeros_like(value) for value in inputs]
    outs, cots = zip(*tracked, strict=True)
    found = torch.autograd.grad(outs, inputs, cots, allow_unused=True)
    return [torch.zeros_like(value) if grad is None else grad for value, grad in zip(inputs, found, strict=True)]


@dataclass(frozen=True)
class _BackpropRecipe:
    name: ClassVar[str]
    whole: ClassVar[bool]
    window: Annotated[int, Ge(1)]
    objective: Literal["mean", "last"] = "mean"
    clip: Annotated[float, Gt(0)] | None = None
    backend: Backend = "own"

    def __post_init__(self) -> None:
        if self.backend not in get_args(Backend):
            raise ConfigError(f"backend must be one of {', '.join(get_args(Backend))}, got {self.backend!r}")

    def build(self, learner: Learner, episodes: Episodes, pairs: int, seed: int, device: str = "cpu", compiled: bool = False) -> Backprop:
        """Return an estimator with 2 N particles that has not begun."""
        check_differentiable(learner, self.name)
        make_step: MakeStep = training_step
        if self.backend == "higher":
            from metaopt.estimators import higher_backend

            higher_backend.check_learner(learner)
            make_step = higher_backend.make_step
        window = None if self.whole else self.window
        every = getattr(self, "checkpoint_steps", 0)
        return Backprop(learner, episodes, 2 * pairs, window, device, self.objective, self.clip, every, compiled, make_step)


@dataclass(frozen=True)
class TruncatedBackprop(_BackpropRecipe):
    """Backpropagation through a window: no noise of its own, but it does not see beyond the window."""

    name: ClassVar[str] = "truncated_backprop"
    whole: ClassVar[bool] = False
    truncated: ClassVar[bool] = True


@dataclass(frozen=True)
class FullBackprop(_BackpropRecipe):
    """Backpropagation through whole episodes, one carry kept every `checkpoint_steps` (0: square root); `window` is not used."""

    name: ClassVar[str] = "full_backprop"
    whole: ClassVar[bool] = True
    window: Annotated[int, Ge(1)] = 1
    checkpoint_steps: Annotated[int, Ge(0)] = 0
