"""Endless episodes of one template: which task and seed particle i meets in its e-th inner run."""

from dataclasses import dataclass, field
from functools import cached_property

from metaopt.seeds import stable_hash
from metaopt.tasks.augmentations import Augmentation, augment, settle
from metaopt.tasks.task import Family, Task

__all__ = ["TaskSource"]


@dataclass
class TaskSource:
    """Episodes drawn from one template of a family; a pure function of (seed, particle, episode, stage).

    Attributes:
        family: where tasks come from.
        template: the static shape that all of them share.
        horizon: closed range of the log-uniform horizon.
        seed: the run's seed for this source.
        augmentations: what the source chooses from, see `chosen`.
        stages: ranges of the horizon by stage of a curriculum; empty for none, then `horizon` is that of every stage.
        stage: of the episodes that begin now; whoever owns the source moves it between two windows, nothing else is ever changed.
    """

    family: Family
    template: str
    horizon: tuple[int, int]
    seed: int
    augmentations: tuple[Augmentation, ...] = ()
    stages: tuple[tuple[int, int], ...] = ()
    stage: int = field(default=0, compare=False)

    @cached_property
    def chosen(self) -> tuple[Augmentation, ...]:
        """The augmentations of all tasks of this source, with their static choices: drawn once, from the source's seed.

        They decide the program, and one source should need one compiled step for ever: only strengths are drawn at every episode.
        """
        return settle(self.augmentations, self.seed)

    def draw(self, particle: int, episode: int) -> int:
        """Return the seed of an episode's task."""
        return stable_hash("task", self.seed, particle, episode)

    def task(self, particle: int, episode: int, stage: int = 0) -> Task:
        """Return the task of an episode that began in a stage; augmentations that mean nothing for its program are left out."""
        draw = self.draw(particle, episode)
        task = self.family.build(self.family.sample(self.template, draw, self.stages[stage] if self.stages else self.horizon))
        return augment(task, [chosen for chosen in self.chosen if chosen.fits(task)], draw)

    def run_seed(self, particle: int, episode: int) -> int:
        """Return the seed of the inner run: initial weights and batches."""
        return stable_hash("run", self.seed, particle, episode)

    def stagger(self, particle: int) -> float:
        """Return the fraction in [0, 1) of its first episode that a particle skips, so that resets do not coincide."""
        return stable_hash("stagger", self.seed, particle) * 2.0**-63
