"""Episodes of a source: pure functions of (seed, particle, episode, stage); a stage changes the horizon's range and nothing else."""

from collections import Counter

import pytest
import torch

from metaopt import tasks
from metaopt.tasks.augmentations import PRESETS, Augmentation, DelayedGradients, ReducedBatch, Reparametrisation
from metaopt.tasks.augmentations.changed_gradients import WithDelayedGradients
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


def test_a_source_is_a_pure_function_of_particle_and_episode() -> None:
    later, first = source().task(2, 7), source().task(2, 7)
    assert all(torch.equal(later.numbers[k], first.numbers[k]) for k in first.numbers)
    hessians = {tuple(source().task(p, e).numbers["hessian"].reshape(-1).tolist()) for p in range(3) for e in range(3)}
    assert len(hessians) == 9
    assert not torch.equal(source(seed=1).task(2, 7).numbers["hessian"], first.numbers["hessian"])
    assert source().run_seed(2, 7) not in {source().draw(2, 7), source(seed=1).run_seed(2, 7), source().run_seed(7, 2)}
    horizons = Counter(int(source().task(0, e).horizon) for e in range(150))
    assert min(horizons) < 8
    assert 35 < max(horizons) <= 40
    assert 0 <= source().stagger(0) < 1


def augmented(*augmentations: Augmentation, seed: int = 0, family: str = "quadratic", template: str = "16x2-gradient") -> TaskSource:
    return TaskSource(tasks.get(family), template, (5, 40), seed, augmentations)


def test_augmentations_change_what_they_name_and_nothing_else() -> None:
    changed = augmented(Reparametrisation(scale=(0.05, 20.0)), seed=3).task(1, 4)
    plain = source().task(1, 4)
    assert all(torch.equal(plain.numbers[name], changed.numbers[name]) for name in plain.numbers)
    assert changed.numbers.keys() - plain.numbers.keys() == {"reparametrisation"}
    assert augmented(Reparametrisation(0.0), seed=3).task(1, 4).program == plain.program


def test_what_a_source_has_is_drawn_once_and_how_strong_at_every_episode() -> None:
    seen = 0
    for seed in range(40):
        one = augmented(*PRESETS["velo"], seed=seed, family="digits_mlp", template="16-tanh-b32")
        several = [one.task(p, e) for p in range(2) for e in range(3)]
        assert len({task.program for task in several}) == 1  # one bucket: a later episode needs no other compiled step
        assert len({tuple(task.numbers) for task in several}) == 1
        for name in ("reparametrisation", "evolution_gradients", "random_directions"):
            if name in several[0].numbers:
                seen += 1
                assert len({float(task.numbers[name]) for task in several}) > 2
    assert seen > 5


def test_augmentations_that_mean_nothing_here_are_left_out() -> None:
    both = (ReducedBatch(), DelayedGradients())
    assert isinstance(augmented(*both).task(0, 0).program, WithDelayedGradients)
    assert "reduced_batch" not in augmented(*both).task(0, 0).numbers
    assert "reduced_batch" in augmented(*both, family="digits_mlp", template="16-tanh-b32").task(0, 0).numbers
