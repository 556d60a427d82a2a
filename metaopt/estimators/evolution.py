"""Antithetic evolution strategies with new noise for every window: full, truncated, and persistent (PES).

Legend: N antithetic pairs, W window steps, P meta-parameters.

All three unroll both members of each pair over a window with theta + eps and theta - eps and multiply the loss difference by a noise
vector. They differ in where a window starts and in which noise its losses are charged to.

Source: Metz et al., 2018, "Understanding and correcting pathologies in the training of learned optimizers" (full and truncated ES);
Vicol, Metz, Sohl-Dickstein, 2021, "Unbiased gradient estimation in unrolled computation graphs with persistent evolution strategies",
algorithm 2. Differs: the loss of an episode's last step is charged to that episode's whole noise. Marking the step as finished one step
early, as the common implementation does, charges it to the new episode's noise alone, a bias of order 1 / T.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.estimators.difference import Difference, Differences
from metaopt.estimators.estimator import MetaGradient
from metaopt.estimators.flat import flatten, unflatten
from metaopt.inner.particles import Episodes, Pairs
from metaopt.learners.learner import Learner
from metaopt.learners.update_rules import Theta

__all__ = ["PES", "Evolution", "FullES", "TruncatedES", "charged_gradient", "mean_and_error"]

_KINDS = ("pes", "truncated_es", "full_es")


def charged_gradient(differences: Sequence[Tensor], noises: Sequence[Tensor], sigma: float) -> Tensor:
    """Return each pair's antithetic estimate [N, P].

    Args:
        differences: for each segment of a window, its weight times (loss of the positive member - loss of the negative one) [N].
        noises: the noise [N, P] that each segment is charged to: all that its episode has met so far, the segment's own included.
        sigma: standard deviation of one draw, > 0.
    """
    total = differences[0][:, None] * noises[0]
    for difference_N, noise_NP in zip(differences[1:], noises[1:], strict=True):
        total = total + difference_N[:, None] * noise_NP
    return total / (2.0 * sigma**2)


def mean_and_error(loss_N: Tensor) -> tuple[float, float]:
    """Return the mean and its standard error (nan for one entry)."""
    return float(loss_N.mean()), float(loss_N.std() / len(loss_N) ** 0.5) if len(loss_N) > 1 else math.nan


class Evolution:
    """An estimator with its pairs. `kind`: "pes", "truncated_es" or "full_es".

    Args:
        kind: full ES starts every pair afresh and unrolls its whole horizon; truncated ES continues from the positive member's state and
            forgets earlier noise (biased); PES continues both members and charges each loss to the noise of its whole episode.
        learner: what is meta-trained.
        episodes: where the pairs' tasks come from.
        pairs: N.
        sigma: standard deviation of a perturbation, in theta units, > 0.
        window: W, inner steps per estimate; full ES unrolls to the longest horizon instead.
        seed: of the perturbations; estimate k draws from (seed, k, pair) and nothing else.
        difference, difference_clip: see `Differences`.
        objective: full ES alone: "mean" over the steps of an episode, or its "last" loss.

    A draw is never stored. PES keeps the sum of those that each running episode has met, because which outer steps they belong to depends
    on when the shard had its turn; `NoiseReuse` with a reuse of one window is PES whose noise follows from the episode instead.
    """

    def __init__(
        self,
        kind: str,
        learner: Learner,
        episodes: Episodes,
        pairs: int,
        sigma: float,
        window: int,
        seed: int,
        device: str = "cpu",
        compiled: bool = False,
        difference: Difference = "raw",
        difference_clip: float = 3.0,
        objective: str = "mean",
    ) -> None:
        if kind not in _KINDS:
            raise ConfigError(f"kind must be one of {', '.join(_KINDS)}, got {kind!r}")
        if sigma <= 0:
            raise ConfigError(f"sigma must be > 0, got {sigma}")
        if objective != "mean" and (kind, objective) != ("full_es", "last"):
            raise ConfigError(f"objective must be mean{' or last' if kind == 'full_es' else f' for {kind}'}, got {objective!r}")
        self.kind, self.sigma, self.window, self.seed, self.objective = kind, sigma, window, seed, objective
        self.pairs = Pairs(learner, episodes, pairs, device, compiled)
        self.differences = Differences(difference, difference_clip)
        self.accumulated: Tensor | None = None  # PES: noise of each pair's running episode [N, P]

    def _noise(self, count: int, outer_step: int, like: Tensor) -> Tensor:
        key = seeds.key("perturbation", self.seed, outer_step).to(like.device)
        keys = seeds.fold_in(key, torch.arange(count, device=like.device))
        return self.sigma * torch.func.vmap(lambda k: seeds.normal(k, (like.numel(),), like.dtype))(keys)

    def _weights(self, valid_WN: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the share of each step in its pair's loss [W, N]."""
        count_N = valid_WN.sum(0)
        if self.objective == "last":
            return (torch.arange(len(valid_WN), device=valid_WN.device)[:, None] == count_N - 1).to(dtype)
        return valid_WN.to(dtype) / count_N  # bool by int64 alone would be float32

    @torch.no_grad()
    def estimate(self, theta: Theta, outer_step: int) -> MetaGradient:
        """Return the meta-gradient of one window at `theta`; advances the pairs.

        A pure function of (theta, outer_step, the pairs' state).
        """
        center = flatten(theta)
        eps = self._noise(self.pairs.pairs, outer_step, center)
        old = eps
        if self.kind == "pes":
            old = eps if self.accumulated is None else self.accumulated + eps
        full = self.kind == "full_es"
        stacked = unflatten(torch.cat([center + eps, center - eps]), theta)
        window = self.pairs.longest_next() if full else self.window
        seen = self.pairs.advance(stacked, window, restart=full, endless=not full, stagger=not full)
        if self.kind == "truncated_es":
            self.pairs.copy_positive()

        valid = seen.valid.to(center.device)
        first = seen.first.to(center.device)
        loss_2WN = torch.stack(seen.loss.chunk(2, dim=1))
        weight_WN = self._weights(valid, loss_2WN.dtype)
        gap = torch.where(valid, weight_WN * (loss_2WN[0] - loss_2WN[1]), 0.0)
        # Steps of the episode that was running when the window began are charged to `old`, later ones to `eps`.
        segments = [(torch.where(mask, gap, 0.0).sum(0), torch.where(mask, weight_WN, 0.0).sum(0)) for mask in (first, ~first)]
        differences, clipped = self.differences.treat(segments)
        per_pair = charged_gradient(differences, (old, eps), self.sigma)
        if self.kind == "pes":
            # A pair that restarted inside the window has forgotten all noise but this window's; one that diverged will restart next.
            self.accumulated = torch.where(first.all(0)[:, None], old, eps)
            self._forget(seen.diverged)
        loss_N = torch.where(valid, weight_WN * loss_2WN.mean(0), 0.0).sum(0)
        mean, error = mean_and_error(loss_N)
        return MetaGradient(
            grad=unflatten(per_pair.mean(0), theta),
            loss=mean,
            loss_se=error,
            nonfinite=seen.nonfinite,
            diverged=len(seen.diverged),
            inner_steps=2 * int(valid.sum()),
            sequential_steps=window,
            clipped_frac=clipped,
        )

    def _forget(self, diverged: tuple[int, ...]) -> None:
        ended = [p for p in range(self.pairs.pairs) if self.pairs.clock[p] >= self.pairs.length[p]]
        if self.accumulated is not None and (rows := sorted({*ended, *diverged})):
            self.accumulated[rows] = 0.0  # the next window starts a new episode for them: xi = its eps alone

    def state(self) -> dict[str, Any]:
        """Return all that the next estimate depends on besides theta: nested dicts of tensors and lists of integers."""
        accumulated = {} if self.accumulated is None else {"accumulated": self.accumulated}
        return {**accumulated, **self.differences.state(), "pairs": self.pairs.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        accumulated = state.get("accumulated")
        self.accumulated = None if accumulated is None else accumulated.to(self.pairs.device)
        self.differences.load(state)
        self.pairs.load(state["pairs"])


@dataclass(frozen=True)
class _EvolutionRecipe:
    name: ClassVar[str]
    window: Annotated[int, Ge(1)]
    sigma: Annotated[float, Gt(0)] = 0.01
    difference: Difference = "raw"
    difference_clip: Annotated[float, Gt(0)] = 3.0

    def build(self, learner: Learner, episodes: Episodes, pairs: int, seed: int, device: str = "cpu", compiled: bool = False) -> Evolution:
        """Return an estimator with N pairs that has not begun."""
        options = (self.difference, self.difference_clip, getattr(self, "objective", "mean"))
        return Evolution(self.name, learner, episodes, pairs, self.sigma, self.window, seed, device, compiled, *options)


@dataclass(frozen=True)
class PES(_EvolutionRecipe):
    """Persistent ES: no bias, and a variance that grows with the number of windows in an episode."""

    name: ClassVar[str] = "pes"


@dataclass(frozen=True)
class TruncatedES(_EvolutionRecipe):
    """Truncated ES: little variance, but it does not see beyond a window, and its sign can be wrong."""

    name: ClassVar[str] = "truncated_es"
    truncated: ClassVar[bool] = True


@dataclass(frozen=True)
class FullES(_EvolutionRecipe):
    """Full ES: one estimate a whole episode; `window` is not used."""

    name: ClassVar[str] = "full_es"
    window: Annotated[int, Ge(1)] = 1
    objective: Literal["mean", "last"] = "mean"
