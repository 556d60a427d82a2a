"""The time of one step: what is in it, how often it is taken, and which clock says so."""

from dataclasses import dataclass, field

import pytest
import torch

from metaopt import learners, tasks
from metaopt.evaluation.runs import step_time
from metaopt.evaluation.runs.step_time import BLOCKS, MIN_BLOCK_S, WARMUP_STEPS, step_seconds
from metaopt.learners.learner import StepRecord
from metaopt.learners.torch_adapter import adapt

LENGTH = MIN_BLOCK_S  # as imported: the fixture below undoes what shortens it for reports
SPEC = tasks.get("quadratic").sample("6x6-minimum", 3, (10, 10))


@pytest.fixture(autouse=True)
def whole_blocks(monkeypatch):
    monkeypatch.setattr(step_time, "MIN_BLOCK_S", LENGTH)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self):
        return self.now


@dataclass(eq=False)
class Timed:
    """Takes as long as told for a step, much longer for the first one of all; at some steps the machine is busy with something else."""

    clock: Clock
    seconds: float
    busy: frozenset[int] = frozenset()
    steps: int = 0
    inits: int = 0
    carries: list = field(default_factory=list)
    threads: set = field(default_factory=set)

    def init(self, theta, task, key):
        self.inits += 1
        return {"t": 0}

    def advance(self, theta, task, carry, batch):
        self.clock.now += 10.0 if self.steps == 0 else self.seconds
        if self.steps in self.busy:
            self.clock.now += 5.0
        self.steps += 1
        self.carries.append(carry["t"])
        self.threads.add(torch.get_num_threads())
        return {"t": carry["t"] + 1}, StepRecord(torch.tensor(0.0))


@pytest.mark.parametrize("seconds", [1e-4, 3e-3, 0.5])
def test_the_time_of_a_step_is_found_and_the_start_is_not_in_it(seconds):
    clock = Clock()
    learner = Timed(clock, seconds)
    assert step_seconds(learner, {}, SPEC, clock=clock) == pytest.approx(seconds)
    assert learner.inits == 1
    assert learner.threads == {1}
    last_block = learner.carries[len(learner.carries) - learner.carries[::-1].index(0) - 1 :]
    assert last_block == list(range(len(last_block))), "a block begins at the initial model and goes on from step to step"
    assert len(last_block) * seconds >= MIN_BLOCK_S * 0.999
    assert learner.carries.count(0) >= BLOCKS + 1


def test_a_busy_moment_does_not_count():
    clock = Clock()
    learner = Timed(clock, 0.1, busy=frozenset(WARMUP_STEPS + i for i in (0, 4, 6)))
    assert step_seconds(learner, {}, SPEC, clock=clock) == pytest.approx(0.1)
    assert learner.steps == WARMUP_STEPS + BLOCKS


def test_a_clock_that_stands_still_for_short_blocks_is_waited_for():
    clock = Clock()
    learner = Timed(clock, 1e-3)
    assert step_seconds(learner, {}, SPEC, clock=lambda: clock.now // 0.005 * 0.005) == pytest.approx(1e-3, rel=0.26)


@pytest.mark.parametrize("name", learners.names())
def test_every_learner_can_be_timed(name, monkeypatch):
    monkeypatch.setattr(step_time, "MIN_BLOCK_S", 0.0)
    learner = learners.get(name)
    assert 0.0 < step_seconds(learner, learner.init_theta(0), SPEC) < 10.0


def test_learners_that_are_not_vectorised_can_be_timed():
    learner = adapt(torch.optim.Adam, lr=0.1)
    assert 0.0 < step_seconds(learner, {}, SPEC) < 10.0
