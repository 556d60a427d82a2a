"""Meta-gradients by forward-mode differentiation: tangents of the inner run travel along with it, from window to window.

Legend: M single particles (twice the number of antithetic pairs that an evolution strategy would have), W window steps, P
meta-parameters, K directions, S floating entries of a carry.

With all P unit vectors as directions the derivative of every loss is exact, at P tangents a step. With K random directions v of independent
signs, (1 / K) sum_k (dL . v_k) v_k is unbiased, with a variance that grows with P / K. A particle keeps its directions for a whole episode,
as `NRES` keeps its noise: the tangent of the inner state belongs to them. Nothing is truncated, and memory does not grow with the horizon.

The objective is the mean loss over the steps of a window, or the last loss of a run: then only runs that end in a window count for it, and
a window of the whole horizon has one end of each. With few numbers shared by many steps (a learned schedule) this is forward
differentiation with sharing.

Source: Wengert, 1964, "A simple automatic derivative evaluation program"; Silver et al., 2021, "Learning by directional gradient descent"
(DODGE, random directions); Baydin et al., 2022, "Gradients without backpropagation". Differs: signs in place of normal numbers, whose
variance is larger. Micaelli, Storkey, 2021, "Gradient-based hyperparameter optimization over long horizons" (sharing).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.estimators.backprop import particle_mean
from metaopt.estimators.estimator import MetaGradient, check_differentiable
from metaopt.estimators.evolution import mean_and_error
from metaopt.estimators.flat import flatten, unflatten
from metaopt.estimators.tangents import floating, prefixed, pushed, signs, summed_window, unprefixed
from metaopt.inner.particles import Episodes, Pairs
from metaopt.learners.learner import Carry, Learner, StepRecord
from metaopt.learners.update_rules import Theta
from metaopt.tasks.task import Batch, Task

__all__ = ["ForwardMode", "ForwardModeEstimator", "TangentLearner"]

_MOST_EXACT = 1000  # unit vectors alone take P^2 numbers a particle


@dataclass(frozen=True)
class TangentLearner:
    """A learner that carries the tangents of another one's run.

    Its theta is that of the other one ("at/...") and K directions of it ("along/...", [K, ...]). Its carry holds the run's carry ("run"),
    K tangents of each floating leaf ("tangents", [K, ...]) and the sums over steps of the normalised loss's tangents ("sum", [K]), or with
    `last` those of the last step alone.
    """

    learner: Learner
    last: bool = False

    def init_theta(self, seed: int) -> Theta:
        """Return the other learner's initial theta without directions."""
        return prefixed(at=self.learner.init_theta(seed))

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return a fresh run and the tangents of its beginning, which need not be zero: a learned initialisation depends on theta."""
        at, along = unprefixed(theta, "at"), unprefixed(theta, "along")

        def begin(values: Theta) -> tuple[tuple[Tensor, ...], Carry]:
            run = self.learner.init(values, task, key)
            return floating(run)[0], run

        def one(direction: Theta) -> tuple[tuple[Tensor, ...], Carry]:
            return pushed(begin, (at,), (direction,))

        tangents, runs = vmap(one)(along)
        run = tree_map(_first, runs)
        directions = next(iter(along.values()))
        return {"run": run, "tangents": list(tangents), "sum": torch.zeros_like(directions.reshape(len(directions), -1)[:, 0])}

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return the carry after one step of the run and of its tangents, and the run's own record."""
        at, along = unprefixed(theta, "at"), unprefixed(theta, "along")
        values, rebuild = floating(carry["run"])

        def step(values_of_theta: Theta, leaves: tuple[Tensor, ...]) -> tuple[tuple[tuple[Tensor, ...], Tensor], tuple[Carry, Tensor]]:
            run, record = self.learner.advance(values_of_theta, task, rebuild(leaves), batch)
            return (floating(run)[0], task.normalise(record.loss)), (run, record.loss)

        def one(direction: Theta, tangents: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor, tuple[Carry, Tensor]]:
            (moved, loss), aux = pushed(step, (at, values), (direction, tangents))
            return moved, loss, aux

        moved, loss_K, (runs, raws) = vmap(one)(along, tuple(carry["tangents"]))
        run, raw = tree_map(_first, runs), _first(raws)
        # Forward mode promotes a float32 number times a Python one to float64.
        kept = [tangent.to(old.dtype) for tangent, old in zip(moved, carry["tangents"], strict=True)]
        before = torch.zeros_like(carry["sum"]) if self.last else carry["sum"]
        return {"run": run, "tangents": kept, "sum": before + loss_K.to(before.dtype)}, StepRecord(raw)


def _first(repeated: Tensor) -> Tensor:
    """Return what is the same for all directions; nested vmaps cannot leave it unrepeated, but they compute it once."""
    return repeated[0]


class ForwardModeEstimator:
    """An estimator with its particles.

    Args:
        learner: what is meta-trained, differentiable in theta and in its carry.
        episodes: where the particles' tasks come from.
        particles: M.
        window: W, inner steps per estimate.
        seed: of the directions.
        device: where the runs live.
        tangents: K random directions an episode; 0 for all P unit vectors, which is exact.
        clip: largest size of an entry of a particle's gradient, or None.
        objective: "mean" over the steps of a window, or the "last" loss of the runs that end in it.
    """

    def __init__(
        self,
        learner: Learner,
        episodes: Episodes,
        particles: int,
        window: int,
        seed: int,
        device: str = "cpu",
        tangents: int = 0,
        clip: float | None = None,
        objective: str = "mean",
    ) -> None:
        if objective not in ("mean", "last"):
            raise ConfigError(f"objective must be mean or last, got {objective!r}")
        self.window, self.seed, self.tangents, self.clip, self.objective = window, seed, tangents, clip, objective
        self.pairs = Pairs(TangentLearner(learner, objective == "last"), episodes, particles, device, members=1)

    def _directions(self, places: list[tuple[int, int]], like: Tensor) -> Tensor:
        """Return the directions [M, K, P] of each particle's episode."""
        count = like.numel()
        if self.tangents == 0:
            if count > _MOST_EXACT:
                raise ConfigError(
                    f"forward_mode with tangents=0 carries one tangent for each of {count} meta-parameters, at most {_MOST_EXACT};"
                    " set tangents to a number of random directions, or use nres"
                )
            return torch.eye(count, dtype=like.dtype, device=like.device).repeat(len(places), 1, 1)
        key = seeds.key("directions", self.seed).to(like.device)
        for counter in (range(len(places)), [episode for episode, _ in places]):
            key = seeds.fold_in(key, torch.tensor(list(counter), dtype=torch.int64, device=like.device))
        return vmap(lambda k: signs(k, (self.tangents, count), like.dtype))(key)

    @torch.no_grad()
    def estimate(self, theta: Theta, outer_step: int) -> MetaGradient:
        """Return the meta-gradient of one window at `theta`; advances the particles. A pure function of (theta, the particles' state)."""
        center, pairs = flatten(theta), self.pairs
        at = {name: torch.stack([value] * pairs.pairs) for name, value in theta.items()}  # duals may not share memory
        held: list[Tensor] = []

        def pieces() -> Iterator[tuple[Theta, int]]:
            for steps, places in pairs.pieces(self.window):
                held[:] = [self._directions(places, center)]
                yield prefixed(at=at, along=unflatten(held[0], theta)), steps

        def harvest(carry: Carry) -> tuple[Tensor, Carry]:
            (directions_MKP,) = held
            grad_MP = torch.einsum("mk,mkp->mp", carry["sum"], directions_MKP)
            return grad_MP / (self.tangents or 1), {**carry, "sum": torch.zeros_like(carry["sum"])}

        if self.objective == "last":
            return _last_of_window(pairs, theta, self.window, self.clip, pieces(), harvest)
        return summed_window(pairs, theta, self.window, self.clip, pieces(), harvest)

    def state(self) -> dict[str, Any]:
        """Return all that the next estimate depends on besides theta; the tangents are among it, their directions are not."""
        return {"pairs": self.pairs.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.pairs.load(state["pairs"])


def _last_of_window(
    pairs: Pairs,
    theta: Theta,
    window: int,
    clip: float | None,
    pieces: Iterator[tuple[Theta, int]],
    harvest: Callable[[Carry], tuple[Tensor, Carry]],
) -> MetaGradient:
    """Return the mean over the runs that end in a window of their last losses, and its gradient; not-a-number where none ends.

    Arguments are those of `summed_window`, for a carry that holds the tangents of the last step. Pieces end where a run does. A run that
    diverges ends with its piece: at the cap, where the derivative is 0, unless it has come back.
    """
    grads, losses, nonfinite, diverged = [], [], 0, set[int]()
    for stacked, steps in pieces:
        seen = pairs.advance(stacked, steps)
        assert pairs.carry is not None
        grad_MP, pairs.carry = harvest(pairs.carry)
        ended = [p for p in range(pairs.pairs) if pairs.clock[p] >= pairs.length[p]]
        grads.append(grad_MP[ended])
        losses.append(seen.loss[-1, ended])
        nonfinite += seen.nonfinite
        diverged |= set(seen.diverged)
    grad_EP, loss_E = torch.cat(grads), torch.cat(losses)  # E runs that ended
    made = {"inner_steps": pairs.pairs * window, "sequential_steps": window}
    if not len(loss_E):
        nothing = {name: torch.full_like(value, math.nan) for name, value in theta.items()}
        return MetaGradient(nothing, math.nan, math.nan, nonfinite, len(diverged), **made)
    mean_P, clipped, dropped = particle_mean(grad_EP, clip)
    mean, error = mean_and_error(loss_E)
    return MetaGradient(unflatten(mean_P, theta), mean, error, max(nonfinite, dropped), len(diverged), **made, clipped_frac=clipped)


@dataclass(frozen=True)
class ForwardMode:
    """Tangents carried forward: exact with `tangents: 0` (all meta-parameters, so keep them few), else that many random directions."""

    name: ClassVar[str] = "forward_mode"
    window: Annotated[int, Ge(1)]
    tangents: Annotated[int, Ge(0)] = 0
    clip: Annotated[float, Gt(0)] | None = None
    objective: Literal["mean", "last"] = "mean"

    def build(
        self, learner: Learner, episodes: Episodes, pairs: int, seed: int, device: str = "cpu", compiled: bool = False
    ) -> ForwardModeEstimator:
        """Return an estimator with 2 N particles that has not begun."""
        check_differentiable(learner, self.name)
        if compiled:
            raise ConfigError(f"estimator {self.name} runs uncompiled only, got compile=true; set compile: false")
        return ForwardModeEstimator(learner, episodes, 2 * pairs, self.window, seed, device, self.tangents, self.clip, self.objective)
