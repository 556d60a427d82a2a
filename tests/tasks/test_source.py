"""Episodes of a source: pure functions of (seed, particle, episode, stage); a stage changes the horizon's range and nothing else."""

import pytest
import torch

from metaopt import tasks
from metaopt.tasks.source import TaskSource

STAGES = ((5, 9), (5, 40), (100, 100))


def source(stages: tuple[tuple[int, int], ...] = (), seed: int = 3) -> TaskSource:
    return TaskSource(tasks.get("quadratic"), "16x2-gradient", (5, 40), seed, stages=stages)


def test_a_stage_is_another_range_of_horizons() -> None:
    staged = source(STAGES)
    for stage, (low, high) in enumerate(STAGES):
        horizons = {int(staged.task(particle, episode, stage).horizon) for particle in range(4) for episode in range(8)}
        assert low <= min(horizons)
        assert max(horizons) <= high
        assert len(horizons) == min(len(horizons), high - low + 1) > (0 if low == high else 2)


@pytest.mark.parametrize("stage", [0, 2])
def test_a_stage_changes_nothing_but_the_horizon(stage: int) -> None:
    plain, staged = source().task(1, 4), source(STAGES).task(1, 4, stage)
    assert plain.program == staged.program
    assert plain.numbers.keys() == staged.numbers.keys()
    assert all(torch.equal(plain.numbers[name], staged.numbers[name]) for name in plain.numbers if name != "horizon")
    assert source(STAGES).run_seed(1, 4) == source().run_seed(1, 4)


def test_without_stages_every_stage_is_the_same() -> None:
    assert float(source().task(0, 0, 7).horizon) == float(source().task(0, 0).horizon)


def test_the_stage_that_begins_now_is_no_part_of_what_a_source_is() -> None:
    one, two = source(STAGES), source(STAGES)
    two.stage = 2
    assert one == two
    assert float(one.task(0, 0, 1).horizon) == float(two.task(0, 0, 1).horizon)
    assert source(seed=4) != source()
