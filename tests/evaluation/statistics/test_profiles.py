"""Profiles of scores and of times, against loops, closed forms and their own bootstrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.evaluation.scores.algoperf import reference_fixed_score
from metaopt.evaluation.scores.targets import task_times
from metaopt.evaluation.statistics.profiles import score_profile, score_profile_band, time_profile, time_profile_band
from metaopt.evaluation.statistics.resampling import bootstrap
from tests.evaluation.cubes import cube, permuted, random_cube

TAU = np.linspace(-2.0, 2.0, 9)
RATIOS = np.array([0.5, 1.0, 2.0, 4.0])


def seeded(seed=0):
    return np.random.default_rng(seed)


def random_times(seed, tasks=6, seeds=5, meta_seeds=1, missed=0.2):
    generator = seeded(seed)
    times = generator.uniform(1.0, 10.0, size=(meta_seeds, tasks, seeds))
    return cube(np.where(generator.uniform(size=times.shape) < missed, np.inf, times), times=True)


def test_a_score_profile_counts_runs_above_each_level():
    values = np.array([[[0.0, 1.0], [1.0, 2.0]]])
    assert score_profile(values, np.array([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist() == [1.0, 0.75, 0.75, 0.25, 0.0]
    assert score_profile(np.stack([values, values + 9.0]), np.array([1.0])).tolist() == [[0.25], [1.0]]


@given(st.integers(0, 1000), st.permutations(range(4)))
def test_a_score_profile_falls_and_its_area_is_the_mean(seed, order):
    values = seeded(seed).uniform(0.0, 1.0, size=(2, 4, 3))
    fine = (np.arange(1000) + 0.5) / 1000
    profile = score_profile(values, fine)
    assert (np.diff(profile) <= 0).all()
    assert profile.mean() == pytest.approx(values.mean(), abs=1e-3)
    assert (score_profile(values[:, order], fine) == profile).all()


def test_the_band_of_a_score_profile_is_one_interval_a_level():
    scores = random_cube(1, meta_seeds=3)
    band = score_profile_band(scores, TAU, seeded(2), resamples=300)
    assert band.value == pytest.approx([(scores.values > tau).mean() for tau in TAU])
    assert ((band.low <= band.value) & (band.value <= band.high)).all()
    for i in (2, 5):
        alone = bootstrap([scores], lambda x, tau=TAU[i]: (x > tau).mean(axis=(-3, -2, -1)), seeded(2), resamples=300)
        assert (band.at(i).low, band.at(i).high) == pytest.approx((alone.low, alone.high))
    again = score_profile_band(permuted(scores, [3, 1, 0, 2]), TAU, seeded(2), resamples=300)
    assert (again.low == band.low).all()
    assert (again.high == band.high).all()
    constant = score_profile_band(cube(np.zeros((2, 3, 4))), TAU, seeded(), resamples=50)
    assert (constant.low == constant.high).all()


def test_a_time_profile_counts_tasks_within_a_multiple_of_the_reference():
    inf = np.inf
    ours = np.array([[[2.0, 2.0, 9.0], [1.0, 1.0, 1.0], [inf, inf, 1.0], [5.0, 5.0, 5.0], [inf, inf, inf]]])
    theirs = np.array([[[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0], [inf, inf, inf], [inf, inf, inf]]])
    # ratios 2, 1/2, missed, reached by us alone, missed by both
    assert time_profile(ours, theirs, RATIOS).tolist() == [0.4, 0.4, 0.6, 0.6]
    assert time_profile(theirs, ours, RATIOS).tolist() == [0.4, 0.4, 0.6, 0.6]
    assert time_profile(np.stack([ours, theirs]), np.stack([theirs, ours]), RATIOS).shape == (2, 4)


@given(st.integers(0, 1000))
def test_a_time_profile_equals_a_loop_and_never_falls(seed):
    ours, theirs = random_times(seed, meta_seeds=2).values, random_times(seed + 1).values
    expected = []
    for tau in RATIOS:
        within = 0
        for j in range(6):
            one, other = np.median(ours[:, j]), np.median(theirs[:, j])
            within += bool(np.isfinite(one) and one / other <= tau)
        expected.append(within / 6)
    profile = time_profile(ours, theirs, RATIOS)
    assert profile == pytest.approx(expected)
    assert (np.diff(profile) >= 0).all()


def test_the_area_under_the_time_profile_is_the_reference_fixed_score():
    ours, theirs = random_times(3).values, random_times(4).values
    tau = 1.0 + (np.arange(3000) + 0.5) * 3.0 / 3000
    score = reference_fixed_score(task_times(ours), task_times(theirs))
    assert time_profile(ours, theirs, tau).mean() == pytest.approx(score, abs=1e-3)


def test_the_reference_itself_is_within_its_own_time_wherever_it_arrives():
    times = random_times(5)
    band = time_profile_band(times, times, RATIOS, seeded(), resamples=200)
    arrived = np.isfinite(task_times(times.values)).mean()
    assert band.value.tolist() == [0.0, arrived, arrived, arrived]
    assert band.low[0] == band.high[0] == 0.0, "paired: never faster than itself"


def test_one_who_never_arrives_is_flat_at_zero():
    nobody = cube(np.full((1, 6, 5), np.inf), times=True)
    band = time_profile_band(nobody, random_times(6), RATIOS, seeded(), resamples=100)
    assert (band.high == 0.0).all()


def test_time_profiles_are_bootstrapped_in_pairs():
    ours, theirs = random_times(7, meta_seeds=3, missed=0.0), random_times(8, missed=0.0)
    band = time_profile_band(ours, theirs, RATIOS, seeded(1), resamples=300)
    alone = bootstrap([ours, theirs], lambda x, y: (task_times(x) <= 2.0 * task_times(y)).mean(axis=-1), seeded(1), resamples=300)
    assert (band.at(2).low, band.at(2).value, band.at(2).high) == pytest.approx((alone.low, alone.value, alone.high))
    with pytest.raises(ValueError, match="must share tasks"):
        time_profile_band(ours, random_times(8, tasks=3), RATIOS, seeded())
