"""Antithetic pairs of inner runs that live on from window to window, each restarting on its own schedule.

Legend: N pairs, M = 2 N rows (all positive members, then all negative ones), W window steps. An estimator that perturbs nothing has
"pairs" of one member: M = N single particles.

Horizons are known on the host before a window starts, so that a window runs without waiting for a result.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metaopt.inner.step import BATCHES_AHEAD, fresh_carries, training_batches, training_step
from metaopt.learners.learner import Carry, Learner
from metaopt.learners.update_rules import Theta
from metaopt.tasks.task import Batch, Program, Task, stack_tasks

__all__ = ["Episodes", "MakeStep", "Pairs", "Window"]

MakeStep = Callable[[Learner, Program, bool, bool], Callable[..., tuple[Carry, Tensor, Tensor]]]  # as `training_step`


class Episodes(Protocol):
    """Where pairs get their inner runs from; see `metaopt.tasks.source.TaskSource`.

    A source with a curriculum also has an attribute `stage`, that of the episodes that begin now; without one, every episode is of stage 0.
    """

    def task(self, particle: int, episode: int, stage: int = 0) -> Task:
        """Return the task of an episode that began in a stage of the curriculum."""

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
    """N antithetic pairs: both members share task, initial weights, batches and restarts, and differ in theta only.

    Args:
        learner: the pair `init` / `advance`.
        episodes: where tasks come from.
        pairs: N.
        device: where everything lives.
        compiled: compile the inner step.
        members: rows a pair, 2 or 1.
        make_step: what builds the step of all rows.
    """

    def __init__(
        self,
        learner: Learner,
        episodes: Episodes,
        pairs: int,
        device: str = "cpu",
        compiled: bool = False,
        members: int = 2,
        make_step: MakeStep = training_step,
    ) -> None:
        self.learner, self.episodes, self.pairs, self.device, self.compiled = learner, episodes, pairs, device, compiled
        self.members, self.make_step = members, make_step
        self.episode = [-1] * pairs  # no run yet: the first window starts one
        self.stage = [0] * pairs  # of the curriculum, when the running episode began
        self.clock = [0] * pairs
        self.length = [0] * pairs
        self.tasks: list[Task | None] = [None] * pairs
        self.carry: Carry | None = None

    def _task(self, pair: int, episode: int, stage: int) -> Task:
        return self.episodes.task(pair, episode, stage) if stage else self.episodes.task(pair, episode)

    def longest_next(self) -> int:
        """Return the longest horizon of the episodes that would begin if every pair restarted now."""
        stage = getattr(self.episodes, "stage", 0)
        return max(int(self._task(p, self.episode[p] + 1, stage).horizon) for p in range(self.pairs))

    def _begin(self, pair: int, stagger: bool) -> None:
        """Move a pair to its next episode, on the host."""
        self.episode[pair] += 1
        self.stage[pair] = getattr(self.episodes, "stage", 0)
        task = self._task(pair, self.episode[pair], self.stage[pair])
        self.clock[pair], self.length[pair] = 0, self._length(pair, self.episode[pair], task, stagger)
        self.tasks[pair] = task.to(self.device)

    def _stack(self, pairs: Sequence[int]) -> tuple[Task, Tensor]:
        """Return the stacked tasks and keys of all members of some pairs."""
        both = [*pairs] * self.members
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
        return torch.tensor([p + member * self.pairs for member in range(self.members) for p in pairs], device=self.device)

    def _batches(self, pairs: Sequence[int], steps: int) -> Batch:
        """Return the next batches [S, members * len(pairs), ...] of all members of some pairs."""
        tasks, keys = self._stack(pairs)
        clocks = torch.tensor([self.clock[p] for p in [*pairs] * self.members], dtype=torch.int64, device=self.device)
        return training_batches(tasks, keys, clocks, steps)

    def advance(self, theta: Theta, window: int, *, restart: bool = False, endless: bool = True, stagger: bool = True) -> Window:
        """Advance all pairs by a window of steps.

        Args:
            theta: meta-parameters stacked over rows [M, ...].
            window: W, >= 1.
            restart: begin a new episode for every pair first.
            endless: a run that ends is followed by the next one; otherwise its later steps, also in later calls, are not valid.
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
            starting = due if endless or (restart and w == 0) else []
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
                    batches[name] = batches[name].clone()  # a graph may hold the batches of the steps before
                    batches[name][place:, self._rows(starting)] = value
            step = self.make_step(self.learner, tasks.program, True, self.compiled)
            batch = {name: value[place] for name, value in batches.items()}
            self.carry, raw, loss = step(theta, tasks.numbers, tasks.shared, self.carry, batch)
            losses.append(loss)
            raws.append(raw)
            self.clock = [c + 1 for c in self.clock]
        loss_WM, raw_WM = torch.stack(losses), torch.stack(raws)
        assert tasks is not None  # window >= 1
        cap = tasks.program.cap
        counted = torch.cat([valid] * self.members, 1).to(loss_WM.device)
        nonfinite = ~torch.isfinite(raw_WM) & counted
        out = (nonfinite | ((loss_WM >= cap) & counted)).any(0).reshape(self.members, self.pairs).any(0).tolist()
        diverged = tuple(p for p in range(self.pairs) if out[p])
        for pair in diverged:
            self.length[pair] = self.clock[pair]
        return Window(loss_WM, first, valid, int(nonfinite.any(0).sum()), diverged)

    def restart(self, theta: Theta) -> None:
        """Begin a new episode of its whole horizon for every pair; differentiable in theta [M, ...] where the learner's `init` is."""
        self._restart(theta, range(self.pairs), stagger=False)

    def pieces(self, window: int, every: int | None = None, stagger: bool = True) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Cut a window where some pair begins an episode, or has made a multiple of `every` steps of one.

        Yields:
            The steps of the next piece, which the caller has to advance by before it asks on, and each pair's (episode, steps made) at its
            first step. A pair that diverges begins its next episode with the next piece.
        """
        left = window
        while left:
            ahead = [self._upcoming(p, stagger) for p in range(self.pairs)]
            limit = min(length - clock for _, clock, length in ahead)
            if every is not None:
                limit = min(limit, *(every - clock % every for _, clock, _ in ahead))
            steps = min(left, limit)
            yield steps, [(episode, clock) for episode, clock, _ in ahead]
            left -= steps

    def _upcoming(self, pair: int, stagger: bool) -> tuple[int, int, int]:
        """Return (episode, steps made, length) at a pair's next step; begins nothing."""
        if self.clock[pair] < self.length[pair]:
            return self.episode[pair], self.clock[pair], self.length[pair]
        episode, stage = self.episode[pair] + 1, getattr(self.episodes, "stage", 0)
        return episode, 0, self._length(pair, episode, self._task(pair, episode, stage), stagger)

    def _length(self, pair: int, episode: int, task: Task, stagger: bool) -> int:
        """Return the steps of an episode: its horizon, less what a pair's very first one skips."""
        horizon = int(task.horizon)
        return horizon - int(self.episodes.stagger(pair) * horizon) if stagger and episode == 0 else horizon

    def detach(self) -> None:
        """Forget how the carries came about: later gradients stop here."""
        self.carry = tree_map(lambda rows: rows.detach(), self.carry)

    def copy_positive(self) -> None:
        """Make every negative member continue from its positive one's state."""
        self.carry = tree_map(lambda rows: torch.cat([rows[: self.pairs], rows[: self.pairs]]), self.carry)

    def state(self) -> dict[str, Any]:
        """Return everything that the next window depends on, as nested dicts of tensors and lists of integers."""
        counters = {"episode": list(self.episode), "stage": list(self.stage), "clock": list(self.clock), "length": list(self.length)}
        return {"carry": self.carry or {}, **counters}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned; tasks are rebuilt from their seeds."""
        self.episode, self.clock, self.length = list(state["episode"]), list(state["clock"]), list(state["length"])
        self.stage = list(state.get("stage", [0] * self.pairs))  # states of checkpoint schema 1 knew no stages
        self.tasks = [self._task(p, e, self.stage[p]).to(self.device) if e >= 0 else None for p, e in enumerate(self.episode)]
        self.carry = tree_map(lambda rows: rows.to(self.device), state["carry"]) or None
