"""Antithetic evolution-strategy estimators of the meta-gradient: full, truncated, and persistent (PES).

Legend: N antithetic pairs, W window steps, P meta-parameters.

All three unroll both members of each pair over a window with theta + eps and theta - eps and multiply the loss difference by a noise
vector. They differ in where a window starts and in which noise its losses are charged to.

Source: Metz et al., 2018, "Understanding and correcting pathologies in the training of learned optimizers" (full and truncated ES);
Vicol, Metz, Sohl-Dickstein, 2021, "Unbiased gradient estimation in unrolled computation graphs with persistent evolution strategies",
algorithm 2. Differs: the loss of an episode's last step is charged to that episode's whole noise. Marking the step as finished one step
early, as the common implementation does, charges it to the new episode's noise alone, a bias of order 1 / T.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from metaopt import seeds
from metaopt.estimators.estimator import MetaGradient
from metaopt.estimators.flat import flatten, unflatten
from metaopt.inner.particles import Episodes, Pairs
from metaopt.learners.learner import Learner
from metaopt.learners.update_rules import Theta

__all__ = ["PES", "Evolution", "FullES", "TruncatedES", "charged_gradient"]

_KINDS = ("pes", "truncated_es", "full_es")


def charged_gradient(gap_WN: Tensor, first_WN: Tensor, old_NP: Tensor, new_NP: Tensor, sigma: float) -> Tensor:
    """Return each pair's antithetic estimate [N, P].

    Args:
        gap_WN: weight of a step times (loss of the positive member - loss of the negative one); the weights of a pair sum to 1.
        first_WN: steps of the episode that was running when the window began, charged to `old_NP`; later ones are charged to `new_NP`.
        old_NP, new_NP: accumulated noise of the running episode (this window's included), and noise of this window.
        sigma: standard deviation of one draw, > 0.
    """
    old_N = torch.where(first_WN, gap_WN, 0.0).sum(0)
    new_N = torch.where(first_WN, 0.0, gap_WN).sum(0)
    return (old_N[:, None] * old_NP + new_N[:, None] * new_NP) / (2.0 * sigma**2)


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
    ) -> None:
        if kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, got {kind!r}")
        if sigma <= 0:
            raise ValueError(f"sigma must be > 0, got {sigma}")
        self.kind, self.sigma, self.window, self.seed = kind, sigma, window, seed
        self.pairs = Pairs(learner, episodes, pairs, device, compiled)
        self.accumulated: Tensor | None = None  # PES: noise of each pair's running episode [N, P]

    def _noise(self, count: int, outer_step: int, like: Tensor) -> Tensor:
        key = seeds.key("perturbation", self.seed, outer_step).to(like.device)
        keys = seeds.fold_in(key, torch.arange(count, device=like.device))
        return self.sigma * torch.func.vmap(lambda k: seeds.normal(k, (like.numel(),), like.dtype))(keys)

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
        weight_WN = valid.to(loss_2WN.dtype) / valid.sum(0)  # bool by int64 alone would be float32
        gap = torch.where(valid, weight_WN * (loss_2WN[0] - loss_2WN[1]), 0.0)
        per_pair = charged_gradient(gap, first, old, eps, self.sigma)
        if self.kind == "pes":
            # A pair that restarted inside the window has forgotten all noise but this window's; one that diverged will restart next.
            self.accumulated = torch.where(first.all(0)[:, None], old, eps)
            self._forget(seen.diverged)
        loss_N = torch.where(valid, weight_WN * loss_2WN.mean(0), 0.0).sum(0)
        return MetaGradient(
            grad=unflatten(per_pair.mean(0), theta),
            loss=float(loss_N.mean()),
            loss_se=float(loss_N.std() / len(loss_N) ** 0.5) if len(loss_N) > 1 else math.nan,
            nonfinite=seen.nonfinite,
            diverged=len(seen.diverged),
            inner_steps=2 * int(valid.sum()),
            sequential_steps=window,
        )

    def _forget(self, diverged: tuple[int, ...]) -> None:
        ended = [p for p in range(self.pairs.pairs) if self.pairs.clock[p] >= self.pairs.length[p]]
        if self.accumulated is not None and (rows := sorted({*ended, *diverged})):
            self.accumulated[rows] = 0.0  # the next window starts a new episode for them: xi = its eps alone

    def state(self) -> dict[str, Any]:
        """Return all that the next estimate depends on besides theta: nested dicts of tensors and lists of integers."""
        accumulated = {} if self.accumulated is None else {"accumulated": self.accumulated}
        return {**accumulated, "pairs": self.pairs.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        accumulated = state.get("accumulated")
        self.accumulated = None if accumulated is None else accumulated.to(self.pairs.device)
        self.pairs.load(state["pairs"])


@dataclass(frozen=True)
class _EvolutionRecipe:
    name: ClassVar[str]
    window: Annotated[int, Ge(1)]
    sigma: Annotated[float, Gt(0)] = 0.01

    def build(self, learner: Learner, episodes: Episodes, pairs: int, seed: int, device: str = "cpu", compiled: bool = False) -> Evolution:
        """Return an estimator with N pairs that has not begun."""
        return Evolution(self.name, learner, episodes, pairs, self.sigma, self.window, seed, device, compiled)


@dataclass(frozen=True)
class PES(_EvolutionRecipe):
    """Persistent ES, windows of `window` inner steps."""

    name: ClassVar[str] = "pes"


@dataclass(frozen=True)
class TruncatedES(_EvolutionRecipe):
    """Truncated ES, windows of `window` inner steps."""

    name: ClassVar[str] = "truncated_es"


@dataclass(frozen=True)
class FullES(_EvolutionRecipe):
    """Full ES: whole runs, whatever the window."""

    name: ClassVar[str] = "full_es"
