"""Antithetic pairs of inner runs that live on from window to window, each restarting on its own schedule.

Legend: N pairs, M = 2 N rows (all positive members, then all negative ones), W window steps.

Horizons are known on the host before a window starts, so that a window runs without waiting for a result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metaopt.inner.step import BATCHES_AHEAD, fresh_carries, training_batches, training_step
from metaopt.learners.learner import Carry, Learner
from metaopt.learners.update_rules import Theta
from metaopt.tasks.task import Batch, Task, stack_tasks

__all__ = ["Episodes", "Pairs", "Window"]


class Episodes(Protocol):
    """Where pairs get their inner runs from; see `metaopt.tasks.source.TaskSource`."""

    def task(self, particle: int, episode: int) -> Task:
        """Return the task of an episode."""

    def run_seed(self, particle: int, episode: int) -> int:
        """Return the seed of its weights and batches."""

    def stagger(self, particle: int) -> float:
        """Return the fraction of the first episode to skip."""


@dataclass(frozen=True)
class Window:
    """What one window of W steps recorded.

    Attributes:
        loss: normalised losses [W, M], capped.
        first: whether a step belongs to the episode that was running when the window began [W, N], bool, on the CPU.
        valid: whether a step counts (False only past the end of a run that must not restart) [W, N], bool, on the CPU.
        nonfinite: number of rows that met a non-finite raw loss.
        diverged: pairs that met one or reached the cap; they restart at the next window.
    """

    loss: Tensor
    first: Tensor
    valid: Tensor
    nonfinite: int
    diverged: tuple[int, ...]


class Pairs:
    """N antithetic pairs: both members share task, initial weights, batches and restarts, and differ in theta only."""

    def __init__(self, learner: Learner, episodes: Episodes, pairs: int, device: str = "cpu", compiled: bool = False) -> None:
        self.learner, self.episodes, self.pairs, self.device, self.compiled = learner, episodes, pairs, device, compiled
        self.episode = [-1] * pairs  # no run yet: the first window starts one
        self.clock = [0] * pairs
        self.length = [0] * pairs
        self.tasks: list[Task | None] = [None] * pairs
        self.carry: Carry | None = None

    def _begin(self, pair: int, stagger: bool) -> None:
        """Move a pair to its next episode, on the host."""
        self.episode[pair] += 1
        task = self.episodes.task(pair, self.episode[pair])
        horizon = int(task.horizon)
        skipped = int(self.episodes.stagger(pair) * horizon) if stagger and self.episode[pair] == 0 else 0
        self.clock[pair], self.length[pair] = 0, horizon - skipped
        self.tasks[pair] = task.to(self.device)

    def _stack(self, pairs: Sequence[int]) -> tuple[Task, Tensor]:
        """Return the stacked tasks and keys of both members of some pairs."""
        both = [*pairs, *pairs]
        tasks = stack_tasks([task for p in both if (task := self.tasks[p]) is not None])
        seeds = [self.episodes.run_seed(p, self.episode[p]) for p in both]
        return tasks, torch.tensor(seeds, dtype=torch.int64, device=self.device)

    def _restart(self, theta: Theta, pairs: Sequence[int], stagger: bool) -> None:
        for pair in pairs:
            self._begin(pair, stagger)
        rows = self._rows(pairs)
        tasks, keys = self._stack(pairs)
        fresh = fresh_carries(self.learner, {k: v[rows] for k, v in theta.items()}, tasks, keys, theta_stacked=True)
        if self.carry is None:
            self.carry = fresh
        else:
            self.carry = tree_map(lambda old, new: old.index_copy(0, rows, new), self.carry, fresh)

    def _rows(self, pairs: Sequence[int]) -> Tensor:
        return torch.tensor([*pairs, *(p + self.pairs for p in pairs)], device=self.device)

    def _batches(self, pairs: Sequence[int], steps: int) -> Batch:
        """Return the next batches [S, 2 * len(pairs), ...] of both members of some pairs."""
        tasks, keys = self._stack(pairs)
        clocks = torch.tensor([self.clock[p] for p in [*pairs, *pairs]], dtype=torch.int64, device=self.device)
        return training_batches(tasks, keys, clocks, steps)

    def advance(self, theta: Theta, window: int, *, restart: bool = False, endless: bool = True, stagger: bool = True) -> Window:
        """Advance all pairs by a window of steps.

        Args:
            theta: meta-parameters stacked over rows [M, ...].
            window: W, >= 1.
            restart: begin a new episode for every pair first.
            endless: a run that ends is followed by the next one; otherwise its later steps are not valid.
            stagger: shorten each pair's very first episode.

        Returns:
            The window. Mutates the pairs.
        """
        if restart:
            self.length = list(self.clock)
        first = torch.ones(window, self.pairs, dtype=torch.bool)
        valid = torch.ones(window, self.pairs, dtype=torch.bool)
        losses, raws = [], []
        everyone = range(self.pairs)
        tasks: Task | None = None
        for w in range(window):
            place, ahead = w % BATCHES_AHEAD, min(BATCHES_AHEAD, window - w + w % BATCHES_AHEAD)
            due = [p for p in everyone if self.clock[p] >= self.length[p]]
            starting = due if endless or w == 0 else []
            if starting:
                if w > 0:
                    first[w:, starting] = False
                self._restart(theta, starting, stagger)
                tasks = None
            elif due:
                valid[w, due] = False
            if tasks is None:
                tasks, _ = self._stack(everyone)
            if place == 0:
                batches = self._batches(everyone, ahead)
            elif starting:
                for name, value in self._batches(starting, ahead - place).items():
                    batches[name][place:, self._rows(starting)] = value
            step = training_step(self.learner, tasks.program, True, self.compiled)
            batch = {name: value[place] for name, value in batches.items()}
            self.carry, raw, loss = step(theta, tasks.numbers, tasks.shared, self.carry, batch)
            losses.append(loss)
            raws.append(raw)
            self.clock = [c + 1 for c in self.clock]
        loss_WM, raw_WM = torch.stack(losses), torch.stack(raws)
        assert tasks is not None  # window >= 1
        cap = tasks.program.cap
        counted = torch.cat([valid, valid], 1).to(loss_WM.device)
        nonfinite = ~torch.isfinite(raw_WM) & counted
        out = (nonfinite | ((loss_WM >= cap) & counted)).any(0).reshape(2, self.pairs).any(0).tolist()
        diverged = tuple(p for p in range(self.pairs) if out[p])
        for pair in diverged:
            self.length[pair] = self.clock[pair]
        return Window(loss_WM, first, valid, int(nonfinite.any(0).sum()), diverged)

    def copy_positive(self) -> None:
        """Make every negative member continue from its positive one's state."""
        self.carry = tree_map(lambda rows: torch.cat([rows[: self.pairs], rows[: self.pairs]]), self.carry)

    def state(self) -> dict[str, Any]:
        """Return everything that the next window depends on, as nested dicts of tensors and lists of integers."""
        return {"carry": self.carry or {}, "episode": list(self.episode), "clock": list(self.clock), "length": list(self.length)}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned; tasks are rebuilt from their seeds."""
        self.episode, self.clock, self.length = list(state["episode"]), list(state["clock"]), list(state["length"])
        self.tasks = [self.episodes.task(p, e).to(self.device) if e >= 0 else None for p, e in enumerate(self.episode)]
        self.carry = tree_map(lambda rows: rows.to(self.device), state["carry"]) or None
