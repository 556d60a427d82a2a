"""Antithetic evolution strategies whose noise belongs to an episode: GPES, and with one draw an episode NRES and ES-Single.

Legend: N antithetic pairs, W window steps, P meta-parameters.

A pair draws new noise every K inner steps of its episode, where its episode begins and nowhere else; losses are charged to the sum of the
episode's draws. One draw an episode (K = T) has the least variance. Draw d of an episode is a function of (seed, pair, episode, d), and so
is the sum: no noise is stored or sent, and the state is that of the pairs.

Source: Li, Harrison, Sohl-Dickstein, Smith, Metz, 2023, "Variance-reduced gradient estimation via noise-reuse in online evolution
strategies", algorithms 1 and 2 (GPES, NRES); Vicol, Kolter, Swersky, 2023, "Low-variance gradient estimation in unrolled computation
graphs with ES-Single". Differs: episodes may begin and draws may change inside a window, which is then cut there, so that each loss is
charged to exactly the noise that it depends on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.estimators.difference import Difference, Differences
from metaopt.estimators.estimator import MetaGradient
from metaopt.estimators.evolution import charged_gradient, mean_and_error
from metaopt.estimators.flat import flatten, unflatten
from metaopt.inner.particles import Episodes, Pairs
from metaopt.learners.learner import Learner
from metaopt.learners.update_rules import Theta

__all__ = ["GPES", "NRES", "ESSingle", "EpisodeNoise", "NoiseReuse"]


class EpisodeNoise:
    """The draws of pairs' running episodes and their sums, both [N, P]; derived from counters, kept only to save work."""

    def __init__(self, sigma: float, seed: int) -> None:
        self.sigma, self.seed = sigma, seed
        self.held: list[tuple[int, int]] = []  # (episode, draw) of each pair
        self.eps, self.total = torch.empty(0), torch.empty(0)

    def draw(self, pairs: Sequence[int], episodes: Sequence[int], draws: Sequence[int], like: Tensor) -> Tensor:
        """Return one draw [len(pairs), P] for each (pair, episode, draw) in turn."""
        key = seeds.key("episode perturbation", self.seed).to(like.device)
        for counter in (pairs, episodes, draws):
            key = seeds.fold_in(key, torch.tensor(list(counter), dtype=torch.int64, device=like.device))
        return self.sigma * torch.func.vmap(lambda k: seeds.normal(k, (like.numel(),), like.dtype))(key)

    def move(self, asked: Sequence[tuple[int, int]], like: Tensor) -> list[int]:
        """Bring every pair to the (episode, draw) that is asked for and return the pairs whose noise changed."""
        if len(self.held) != len(asked) or self.eps.dtype != like.dtype:
            self.held = [(-1, -1)] * len(asked)
            self.eps, self.total = (torch.zeros(len(asked), like.numel(), dtype=like.dtype, device=like.device) for _ in range(2))
        changed = [pair for pair, want in enumerate(asked) if self.held[pair] != want]
        # Mostly one draw further; after `load`, from an episode's first draw on, in the same order and hence to the same bits.
        todo = {p: self.held[p][1] + 1 if self.held[p][0] == asked[p][0] and self.held[p][1] < asked[p][1] else 0 for p in changed}
        while todo:
            rows = list(todo)
            fresh = self.draw(rows, [asked[p][0] for p in rows], [todo[p] for p in rows], like)
            begun = torch.tensor([todo[p] == 0 for p in rows], device=like.device)[:, None]
            self.eps = self.eps.index_copy(0, torch.tensor(rows, device=like.device), fresh)
            total = torch.where(begun, fresh, self.total[rows] + fresh)
            self.total = self.total.index_copy(0, torch.tensor(rows, device=like.device), total)
            todo = {p: d + 1 for p, d in todo.items() if d < asked[p][1]}
        self.held = list(asked)
        return changed


class NoiseReuse:
    """An estimator with its pairs.

    Args:
        learner: what is meta-trained.
        episodes: where the pairs' tasks come from.
        pairs: N.
        sigma: standard deviation of a draw, in theta units, > 0.
        window: W, inner steps per estimate.
        seed: of the draws.
        reuse: K, inner steps of an episode that share a draw; None for the whole episode.
        stagger: shorten each pair's first episode by a random part, so that pairs are at different places of their episodes.
        difference, difference_clip: see `Differences`.
    """

    def __init__(
        self,
        learner: Learner,
        episodes: Episodes,
        pairs: int,
        sigma: float,
        window: int,
        seed: int,
        device: str = "cpu",
        compiled: bool = False,
        reuse: int | None = None,
        stagger: bool = True,
        difference: Difference = "raw",
        difference_clip: float = 3.0,
    ) -> None:
        if sigma <= 0:
            raise ConfigError(f"sigma must be > 0, got {sigma}")
        self.sigma, self.window, self.reuse, self.stagger = sigma, window, reuse, stagger
        self.pairs = Pairs(learner, episodes, pairs, device, compiled)
        self.noise = EpisodeNoise(sigma, seed)
        self.differences = Differences(difference, difference_clip)

    @torch.no_grad()
    def estimate(self, theta: Theta, outer_step: int) -> MetaGradient:
        """Return the meta-gradient of one window at `theta`; advances the pairs. A pure function of (theta, the pairs' state)."""
        center, pairs, noise = flatten(theta), self.pairs, self.noise
        zero = center.new_zeros(pairs.pairs)
        loss_N, gap_N, weight_N = zero, zero, zero  # of the window; of the segment that each pair is in
        segments: list[tuple[Tensor, Tensor]] = []
        charged: list[Tensor] = []
        nonfinite, diverged = 0, set[int]()
        for piece, (steps, places) in enumerate(pairs.pieces(self.window, self.reuse, self.stagger)):
            before = noise.total
            changed = noise.move([(episode, clock // self.reuse if self.reuse else 0) for episode, clock in places], center)
            if piece > 0:  # the segments of pairs whose noise changed end here
                ends = torch.zeros(pairs.pairs, dtype=torch.bool, device=center.device)
                ends[changed] = True
                segments.append((torch.where(ends, gap_N, 0.0), torch.where(ends, weight_N, 0.0)))
                charged.append(before)
                gap_N, weight_N = torch.where(ends, 0.0, gap_N), torch.where(ends, 0.0, weight_N)
            seen = pairs.advance(unflatten(torch.cat([center + noise.eps, center - noise.eps]), theta), steps, stagger=self.stagger)
            loss_2N = torch.stack(seen.loss.chunk(2, dim=1)).sum(1) / self.window
            gap_N, weight_N = gap_N + (loss_2N[0] - loss_2N[1]), weight_N + steps / self.window
            loss_N = loss_N + loss_2N.mean(0)
            nonfinite += seen.nonfinite
            diverged |= set(seen.diverged)
        segments.append((gap_N, weight_N))
        charged.append(noise.total)
        differences, clipped = self.differences.treat(segments)
        mean, error = mean_and_error(loss_N)
        return MetaGradient(
            grad=unflatten(charged_gradient(differences, charged, self.sigma).mean(0), theta),
            loss=mean,
            loss_se=error,
            nonfinite=nonfinite,
            diverged=len(diverged),
            inner_steps=2 * pairs.pairs * self.window,
            sequential_steps=self.window,
            clipped_frac=clipped,
        )

    def state(self) -> dict[str, Any]:
        """Return all that the next estimate depends on besides theta; noise is not among it."""
        return {**self.differences.state(), "pairs": self.pairs.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.differences.load(state)
        self.pairs.load(state["pairs"])
        self.noise.held = []


@dataclass(frozen=True)
class _NoiseReuseRecipe:
    name: ClassVar[str]
    staggered: ClassVar[bool] = True
    window: Annotated[int, Ge(1)]
    sigma: Annotated[float, Gt(0)] = 0.01
    difference: Difference = "raw"
    difference_clip: Annotated[float, Gt(0)] = 3.0

    def build(self, learner: Learner, episodes: Episodes, pairs: int, seed: int, device: str = "cpu", compiled: bool = False) -> NoiseReuse:
        """Return an estimator with N pairs that has not begun."""
        options = (self._reuse(), self.staggered, self.difference, self.difference_clip)
        return NoiseReuse(learner, episodes, pairs, self.sigma, self.window, seed, device, compiled, *options)

    def _reuse(self) -> int | None:
        return None


@dataclass(frozen=True)
class NRES(_NoiseReuseRecipe):
    """Noise-reuse ES: one draw an episode, pairs spread over their episodes. No bias, and a variance that windows do not raise."""

    name: ClassVar[str] = "nres"


@dataclass(frozen=True)
class ESSingle(_NoiseReuseRecipe):
    """ES-Single: the same formula as NRES, with all pairs in lockstep: they begin together, as the algorithm was published.

    Window j of every pair is the same part of its episode, so that one estimate is of that part's losses only, and a whole round of
    windows is the unbiased one. Episodes of unequal horizons drift apart.
    """

    name: ClassVar[str] = "es_single"
    staggered: ClassVar[bool] = False


@dataclass(frozen=True)
class GPES(_NoiseReuseRecipe):
    """Generalised PES: a new draw every `reuse_steps` inner steps of an episode, a multiple of `window` (0: one window, which is PES)."""

    name: ClassVar[str] = "gpes"
    reuse_steps: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        if self.reuse_steps % self.window:
            raise ConfigError(f"reuse_steps must be a multiple of window={self.window}, got {self.reuse_steps}")

    def _reuse(self) -> int:
        return self.reuse_steps or self.window
