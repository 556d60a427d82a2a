"""Evaluations made of straight lines, whose tables are known in advance."""

from dataclasses import dataclass, field, replace

import numpy as np

from metaopt import baselines
from metaopt.baselines import Curves, Tuned
from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.runs.measure import Measured
from metaopt.evaluation.suites import Axis, AxisLevel, Suite, SuiteTask
from metaopt.evaluation.tables.rows import Reference, ScoredTask
from metaopt.evaluation.tables.tabulate import tabulate
from metaopt.learners import get as get_learner
from metaopt.tasks import get as get_family

HORIZON = 40
CAP = 10.0
STEPS = np.linspace(0.0, HORIZON, 41)
SPREAD = np.array([0.0, 0.01, -0.01, 0.02, -0.02])  # of the seeds' final losses
BEST = 0.4  # mean final loss of the reference
ENDS = {("adamw", 1): 0.7, ("adamw", 5): 0.5, ("adamw", 15): BEST, ("sgd", 1): 0.8, ("sgd", 5): 0.7, ("sgd", 15): 0.6}


def straight(ends, horizon=HORIZON, first=1.0):
    """Runs whose loss falls in a straight line."""
    steps = np.linspace(0.0, horizon, 41)
    heldout = first + (np.asarray(ends, dtype=float) - first) * (steps / horizon)[:, None]
    return Curves(steps, heldout, heldout * 0.9, np.zeros(heldout.shape[1], dtype=bool))


def ending(end, seeds=5):
    """Runs that end near a loss, each seed at its own distance."""
    return straight(end + SPREAD[:seeds])


def still(seeds=5):
    """Runs that change nothing."""
    return straight(np.ones(seeds))


def diverging(seeds=5):
    """Runs that fall at first, below every target, and then leave the finite range."""
    curves = straight(np.full(seeds, 0.01))
    return replace(curves, heldout=np.where(curves.steps[:, None] > 35, CAP, curves.heldout), diverged=np.ones(seeds, dtype=bool))


@dataclass
class World:
    """Arguments of `tabulate`; `run` calls it, with changes.

    Attributes:
        tasks: names, BASE or BASE@LEVEL.
        learners: (name, meta-seed) -> curves, reason, or a function of the task's name that returns one of them.
        ends: (baseline, trials) -> final loss, or a function of the task's name that returns it.
    """

    tasks: tuple[str, ...] = tuple("abcdefghijkl")
    learners: dict = field(default_factory=dict)
    ends: dict = field(default_factory=lambda: dict(ENDS))
    seeds: int = 5
    levels: dict | None = None
    cards: dict = field(default_factory=dict)
    kinds: dict = field(default_factory=dict)
    can_run: dict = field(default_factory=dict)
    envelope: tuple | None = None
    finals: int = 15

    def spec(self, name):
        number = int.from_bytes(name.encode(), "big") % 10_000
        return get_family("quadratic").sample("6x6-minimum", number, (HORIZON, HORIZON))

    def suite(self):
        kinds = ("update_rule",)
        tasks = []
        for name in self.tasks:
            base, _, level = name.partition("@")
            tasks.append(SuiteTask(name, base, level or None, self.spec(name), self.can_run.get(name, kinds)))
        axis = self.levels and Axis("width", "x1", tuple(AxisLevel(*level) for level in self.levels.items()))
        return Suite("made", "straight lines", tuple(tasks), axis, ("sgd", "adamw"), self.seeds)

    def candidates(self):
        learner = get_learner("sgd")
        return [
            Candidate(name, learner, {}, self.cards.get(name), self.kinds.get(name, "update_rule"), meta_seed)
            for name, meta_seed in self.learners
        ]

    def chosen(self):
        return [baselines.get(name) for name in dict.fromkeys(name for name, _ in self.ends)]

    def baseline_end(self, task, name, trials):
        end = self.ends[name, trials]
        return end(task) if callable(end) else end

    def measured(self):
        tuned, finals, references = {}, {}, {}
        for task in self.tasks:
            tuned[task] = []
            for one in self.chosen():
                # The trial that each budget chose; they must differ for their curves to.
                trials = dict(zip((1, 5, 15), (one.trials(15)[i] for i in (0, 4, 9)), strict=True))
                tuned[task].append(Tuned(one, trials, self.baseline_end(task, one.name, 15), tuple(np.linspace(0.4, 2.0, self.finals))))
                for budget, trial in trials.items():
                    finals[task, one.name, trial] = ending(self.baseline_end(task, one.name, budget), self.seeds)
            best = min(tuned[task], key=lambda one: one.loss)
            trial = best.trials[15]
            end = best.loss
            runs = {HORIZON: finals[task, best.baseline.name, trial]}
            runs |= {k * HORIZON: straight(end * (1 - 0.2 * k) + SPREAD[: self.seeds], k * HORIZON) for k in (2, 4)}
            references[task] = Reference(best.baseline.name, trial.rate, runs)
        learners = {}
        for (name, meta_seed), made in self.learners.items():
            for task in self.suite().tasks:
                if self.kinds.get(name, "update_rule") in task.kinds:
                    curves = made(task.name) if callable(made) else made
                    if curves is not None:
                        learners[name, meta_seed, task.name] = curves
        envelopes = dict.fromkeys(self.tasks, self.envelope) if self.envelope else {}
        return Measured(learners, tuned, finals, references, envelopes)

    def scored(self):
        seeds = tuple(range(self.seeds))
        return [ScoredTask(task.name, task.spec, CAP, seeds) for task in self.suite().tasks]

    def run(self, **change):
        suite = self.suite()
        given = {
            "candidates": self.candidates(),
            "chosen": self.chosen(),
            "measured": self.measured(),
            "scored": self.scored(),
            "provenance": {"suite": suite.name},
        }
        return tabulate(suite, **(given | change))


def line(table, learner, trials=1, **more):
    """The only row of a line."""
    chosen = table[(table.learner == learner) & (table.trials == trials)]
    for name, value in more.items():
        chosen = chosen[chosen[name] == value]
    assert len(chosen) == 1
    return chosen.iloc[0]
