"""The meta-generalization gap."""

import numpy as np
import pytest

from metaopt.evaluation.statistics.aggregates import interquartile_mean, overall_mean
from metaopt.evaluation.statistics.gap import generalization_gap
from tests.evaluation.cubes import cube, permuted, random_cube


def seeded(seed=0):
    return np.random.default_rng(seed)


def test_a_learner_that_does_the_same_everywhere_has_no_gap():
    scores = random_cube(0, meta_seeds=3)
    gap = generalization_gap(scores, scores, seeded())
    assert (gap.low, gap.value, gap.high) == (0.0, 0.0, 0.0)


def test_the_gap_is_the_difference_of_both_aggregates():
    trained, split = random_cube(1, tasks=12, seeds=5, meta_seeds=5), random_cube(2, tasks=7, seeds=3, meta_seeds=5)
    gap = generalization_gap(trained, split, seeded())
    assert gap.value == pytest.approx(interquartile_mean(trained.values) - interquartile_mean(split.values))
    assert gap.low < 0.0 < gap.high, "both are noise around 0"
    shifted = generalization_gap(cube(trained.values + 3.0), split, seeded())
    assert (shifted.low, shifted.high) == pytest.approx((gap.low + 3.0, gap.high + 3.0))
    assert shifted.low > 0.0


def test_meta_seeds_are_drawn_once_for_both_splits():
    """A meta-training that is better by 1 is better on both splits: nothing of it is left in the gap."""
    quality = np.array([0.0, 1.0, 5.0])[:, None, None]
    trained, split = cube(np.broadcast_to(quality + 1.0, (3, 4, 2))), cube(np.broadcast_to(quality, (3, 6, 3)))
    gap = generalization_gap(trained, split, seeded(), overall_mean)
    assert (gap.low, gap.value, gap.high) == pytest.approx((1.0, 1.0, 1.0))


def test_runs_of_different_splits_are_drawn_apart():
    """Noise of both splits adds up: the width of the difference of two independent means."""
    trained, split = random_cube(3, tasks=20, seeds=8), random_cube(4, tasks=10, seeds=8)
    gap = generalization_gap(trained, split, seeded(), overall_mean)
    error = np.sqrt(trained.values[0].var(axis=-1).mean() / 160 + split.values[0].var(axis=-1).mean() / 80)
    assert gap.high - gap.low == pytest.approx(2 * 1.96 * error, rel=0.07)


def test_the_order_of_tasks_changes_nothing_and_new_tasks_widen():
    trained, split = random_cube(5, meta_seeds=2), random_cube(6, tasks=3, meta_seeds=2)
    gap = generalization_gap(trained, split, seeded())
    assert generalization_gap(permuted(trained, [2, 0, 3, 1]), permuted(split, [1, 2, 0]), seeded()) == gap
    uneven = cube(np.broadcast_to(np.arange(6.0)[None, :, None], (2, 6, 3)))
    narrow, wide = (generalization_gap(uneven, split, seeded(), new_tasks=new) for new in (False, True))
    assert wide.high - wide.low > narrow.high - narrow.low


def test_different_meta_trainings_have_no_gap_in_common():
    with pytest.raises(ValueError, match=r"must hold the same meta-seeds, got \(0, 1\) and \(0,\)"):
        generalization_gap(random_cube(0, meta_seeds=2), random_cube(0), seeded())
