"""Phases of meta-training: which outer steps they have, what of theta they train, and a learner that keeps the rest as it is.

A phase is a run of its own that starts from the theta of the one before: fresh outer optimizer, fresh inner runs. Estimators get a theta
that holds only the trainable entries, so that nothing else is perturbed, decayed, or costs variance.

Source: Moudgil et al., 2025, "Celo: training versatile learned optimizers on a compute diet" (update rule first, then its scheduler).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from metaopt.config import Config
from metaopt.config.outer import OptimizerConfig, PhaseConfig
from metaopt.learners import Carry, Learner, StepRecord
from metaopt.learners.update_rules import Theta
from metaopt.tasks.task import Batch, Task

__all__ = ["PartlyFrozen", "Phase", "joined", "phase_of", "phases_of", "section_of"]


@dataclass(frozen=True)
class Phase:
    """Outer steps [start, stop).

    Attributes:
        index: its number, from 0.
        train: patterns on the names of theta's entries.
        optimizer: the outer optimizer, with the phase's step size.
        horizon: range of the horizons in place of the tasks' own, or None.
    """

    index: int
    start: int
    stop: int
    train: tuple[str, ...]
    optimizer: OptimizerConfig
    horizon: tuple[int, int] | None

    def split(self, theta: Theta) -> tuple[Theta, Theta]:
        """Return the trainable and the frozen entries, each in theta's order."""
        trained = [name for name in theta if any(fnmatchcase(name, pattern) for pattern in self.train)]
        return {name: theta[name] for name in trained}, {name: value for name, value in theta.items() if name not in trained}


def phases_of(config: Config) -> tuple[Phase, ...]:
    """Return the phases of a run, at least one."""
    outer, begin, found = config.outer, 0, []
    for index, (section, border) in enumerate(zip(outer.phases or (PhaseConfig(),), outer.borders, strict=True)):
        optimizer = outer.optimizer if section.lr is None else outer.optimizer.model_copy(update={"lr": section.lr})
        found.append(Phase(index, begin, border, section.train, optimizer, section.horizon))
        begin = border
    return tuple(found)


def section_of(config: Config, phase: int) -> PhaseConfig:
    """Return the section of a phase; a run without phases has one."""
    return (config.outer.phases or (PhaseConfig(),))[phase]


def phase_of(phases: tuple[Phase, ...], done: int) -> Phase:
    """Return the phase of the last of `done` outer steps, the first phase before any."""
    return next(phase for phase in phases if done <= phase.stop)


def joined(order: Iterable[str], trained: Theta, frozen: Theta) -> Theta:
    """Return the whole theta, entries in `order`."""
    both = {**trained, **frozen}
    return {name: both[name] for name in order}


@dataclass(frozen=True, eq=False)
class PartlyFrozen:
    """A learner whose meta-parameters are those that a phase trains; the frozen ones are part of it, the same for every particle."""

    learner: Learner
    frozen: Theta

    def init_theta(self, seed: int) -> Theta:
        """Return the trainable part of the learner's initial meta-parameters."""
        return {name: value for name, value in self.learner.init_theta(seed).items() if name not in self.frozen}

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return what the learner returns for the whole theta."""
        return self.learner.init({**theta, **self.frozen}, task, key)

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return what the learner returns for the whole theta."""
        return self.learner.advance({**theta, **self.frozen}, task, carry, batch)
