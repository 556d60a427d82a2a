"""The bootstrap: what is drawn, what is shared, what the intervals hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.evaluation.statistics.aggregates import interquartile_mean, median_of_task_means, overall_mean, worst_decile
from metaopt.evaluation.statistics.improvement import probability_of_improvement
from metaopt.evaluation.statistics.resampling import Interval, bootstrap, bootstrap_band, under_covered
from tests.evaluation.cubes import cube, permuted, random_cube


def seeded(seed=0):
    return np.random.default_rng(seed)


def test_equal_generators_give_equal_intervals_and_constant_scores_no_width():
    scores = random_cube(0)
    first, second = (bootstrap([scores], interquartile_mean, seeded(7)) for _ in range(2))
    assert first == second
    assert first != bootstrap([scores], interquartile_mean, seeded(8))
    assert first.low < first.value < first.high
    constant = bootstrap([cube(np.full((3, 3, 4), 0.25))], interquartile_mean, seeded(), new_tasks=True)
    assert constant == Interval(0.25, 0.25, 0.25)


@given(st.permutations(range(4)), st.sampled_from([interquartile_mean, median_of_task_means, worst_decile]), st.booleans())
def test_the_order_of_tasks_changes_nothing(order, statistic, new_tasks):
    scores = random_cube(1, meta_seeds=2)
    intervals = [bootstrap([one], statistic, seeded(), 50, new_tasks=new_tasks) for one in (scores, permuted(scores, order))]
    assert intervals[0] == intervals[1]


@given(st.floats(0.1, 10), st.floats(-10, 10))
def test_intervals_shift_and_scale_with_the_scores(scale, shift):
    scores = random_cube(5, tasks=3)
    one = bootstrap([scores], interquartile_mean, seeded(), 50)
    other = bootstrap([cube(scale * scores.values + shift)], interquartile_mean, seeded(), 50)
    assert (other.value, other.low, other.high) == pytest.approx([scale * end + shift for end in (one.value, one.low, one.high)])


def test_a_resample_is_what_a_loop_draws_with_the_same_numbers():
    """Meta-seeds first, then inner seeds inside every (meta-seed, task): one loop a resample, from the generator's own numbers."""
    scores = random_cube(3, tasks=3, seeds=4, meta_seeds=2)
    resamples, generator = 60, seeded(11)
    meta = generator.integers(2, size=(resamples, 2, 1, 1))
    inner = generator.integers(4, size=(resamples, 2, 3, 4))
    means = [
        np.mean([scores.values[meta[r, i, 0, 0], j, inner[r, i, j, k]] for i in range(2) for j in range(3) for k in range(4)])
        for r in range(resamples)
    ]
    interval = bootstrap([scores], overall_mean, seeded(11), resamples)
    assert interval.value == pytest.approx(scores.values.mean())
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))


def test_every_resample_of_two_seeds_has_its_share():
    """Two runs, 0 and 1: the mean of a resample is 0, 1/2, 1 with odds 1:2:1, so a 40 % interval is all 1/2 and a 60 % one is not."""
    scores = cube([[[0.0, 1.0]]])
    assert bootstrap([scores], overall_mean, seeded(), confidence=0.4) == Interval(0.5, 0.5, 0.5)
    assert bootstrap([scores], overall_mean, seeded(), confidence=0.6) == Interval(0.5, 0.0, 1.0)


def test_the_width_of_a_mean_is_that_of_theory():
    """Stratified by task with K seeds: the standard error is the root of mean over tasks of var / (J K), with var over K, not K - 1."""
    scores = random_cube(4, tasks=12, seeds=10)
    interval = bootstrap([scores], overall_mean, seeded(), 4000)
    error = np.sqrt(scores.values[0].var(axis=-1).mean() / (12 * 10))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_differences_are_bootstrapped_in_pairs():
    """A constant shift has no width when the draws are shared; two separate intervals would."""
    scores = random_cube(2, meta_seeds=3)
    shifted = cube(scores.values + 0.5)

    def gain(left, right):
        return overall_mean(left) - overall_mean(right)

    for new_tasks in (False, True):
        interval = bootstrap([shifted, scores], gain, seeded(), new_tasks=new_tasks)
        assert (interval.low, interval.high) == pytest.approx((0.5, 0.5))


def test_a_baseline_without_meta_seeds_is_paired_with_each_of_them():
    """The same inner seeds on both sides: a learner that beats the baseline by 1 on every seed, whatever its meta-seed, has no width."""
    baseline = random_cube(6)
    learner = cube(np.repeat(baseline.values + 1.0, 3, axis=0))
    interval = bootstrap([learner, baseline], lambda left, right: overall_mean(left) - overall_mean(right), seeded())
    assert (interval.low, interval.value, interval.high) == pytest.approx((1.0, 1.0, 1.0))
    swapped = bootstrap([baseline, learner], lambda left, right: overall_mean(left) - overall_mean(right), seeded())
    assert (swapped.low, swapped.high) == pytest.approx((-1.0, -1.0))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (random_cube(2, tasks=3, meta_seeds=2), "must share tasks, seeds"),
        (random_cube(2, seeds=3, meta_seeds=2), "must share tasks, seeds"),
        (random_cube(2, meta_seeds=3), "must share their meta-seeds"),
        (cube(np.zeros((2, 4, 5)), meta_seeds=(0, 2)), "must share their meta-seeds"),
        (cube(np.zeros((2, 4, 5)), seeds=(0, 1, 2, 3, 5)), "must share tasks, seeds"),
    ],
)
def test_cubes_that_cannot_be_paired_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        bootstrap([random_cube(2, meta_seeds=2), other], lambda left, right: overall_mean(left), seeded())


def test_meta_seeds_are_resampled_as_wholes():
    """With seeds that agree inside each meta-seed, all width comes from the meta-seeds."""
    between = np.broadcast_to(np.array([0.0, 1.0, 2.0, 3.0])[:, None, None], (4, 3, 5))
    wide = bootstrap([cube(between)], overall_mean, seeded())
    assert wide.high - wide.low > 1.0
    within = bootstrap([cube(between[:1])], overall_mean, seeded())
    assert within.high == within.low


def test_tasks_are_drawn_only_for_claims_about_new_ones():
    between = cube(np.broadcast_to(np.arange(6.0)[None, :, None], (2, 6, 3)))
    these = bootstrap([between], overall_mean, seeded())
    assert these.high == these.low == 2.5
    new = bootstrap([between], overall_mean, seeded(), new_tasks=True)
    error = np.sqrt(np.arange(6.0).var() / 6)
    assert new.high - new.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert (bootstrap([random_cube(0)], overall_mean, seeded(), new_tasks=False)) == bootstrap([random_cube(0)], overall_mean, seeded())


def test_a_band_is_one_interval_for_every_point():
    scores = random_cube(8)
    band = bootstrap_band([scores], lambda x: np.stack([overall_mean(x), worst_decile(x)], axis=-1), seeded(3), 200)
    for i, statistic in enumerate((overall_mean, worst_decile)):
        alone = bootstrap([scores], statistic, seeded(3), 200)
        point = band.at(i)
        assert (point.value, point.low, point.high) == pytest.approx((alone.value, alone.low, alone.high))
    with pytest.raises(ValueError, match="must return one number a resample"):
        bootstrap([scores], lambda x: x.mean(axis=(-3, -1)), seeded())


def test_large_cubes_are_resampled_in_parts_with_the_same_result():
    """More scores than fit into one part, against all of them at once."""
    scores = random_cube(9, tasks=40, seeds=10, meta_seeds=2)
    generator = seeded(5)
    meta = generator.integers(2, size=(500, 2, 1, 1))
    inner = generator.integers(10, size=(500, 2, 40, 10))
    whole = scores.values[meta, np.arange(40)[None, None, :, None], inner]
    interval = bootstrap([scores], interquartile_mean, seeded(5), 500)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(interquartile_mean(whole), [2.5, 97.5])), rel=1e-12)


def test_misses_may_reach_the_ends_of_an_interval_but_not_its_finite_part():
    times = cube([[[1.0, 2.0, 3.0, np.inf, 5.0]]], times=True)
    interval = bootstrap([times], lambda x: np.median(x[..., 0, 0, :], axis=-1), seeded())
    assert interval == Interval(3.0, 1.0, np.inf)
    always = bootstrap([cube([[[np.inf, np.inf]]], times=True)], lambda x: x.max(axis=(-3, -2, -1)), seeded())
    assert always == Interval(np.inf, np.inf, np.inf)


def test_a_rare_infinity_leaves_the_interval_finite():
    """One run in nine misses; its resamples' median is a miss in about 0.1 % of the cases, some of 5000, far from the 2.5 % of an end."""
    times = cube([[[*range(1, 9), np.inf]]], times=True)
    found = []

    def median(values):
        found.append(np.median(values[..., 0, 0, :], axis=-1))
        return found[-1]

    interval = bootstrap([times], median, seeded(), 5000)
    draws = np.sort(np.concatenate(found[:-1]))
    assert np.isinf(draws[-1])
    assert (interval.low, interval.high) == (draws[124], draws[-125])


def test_undefined_resamples_count_against_either_end():
    """Share of resamples without a defined statistic: about 0.33 (no 1 among five of five); both ends give way."""
    scores = cube([[[0.0, 0.0, 0.0, 0.0, 1.0]]])
    interval = bootstrap([scores], lambda x: np.where(x.sum(axis=(-3, -2, -1)) > 0, 1.0, np.nan), seeded())
    assert interval == Interval(1.0, -np.inf, np.inf)
    rare = cube([[[0.0, *np.ones(9)]]])  # undefined only when all ten draws are the 0
    assert bootstrap([rare], lambda x: np.where(x.sum(axis=(-3, -2, -1)) > 0, 1.0, np.nan), seeded()) == Interval(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resamples": 0}, "resamples must be >= 1, got 0"),
        ({"confidence": 0.0}, r"confidence must be in \(0, 1\), got 0.0"),
        ({"confidence": 95}, r"confidence must be in \(0, 1\), got 95"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap([random_cube(0)], overall_mean, seeded(), **arguments)


def test_too_few_meta_seeds_or_tasks_are_flagged():
    assert under_covered(1, 24)
    assert under_covered(4, 10)
    assert under_covered(5, 9)
    assert not under_covered(5, 10)


def coverage(tasks, runs, statistic, simulations, meta=False):
    """Share of simulations of normal scores whose 95 % interval holds the true value 0."""
    hits = 0
    for seed in range(simulations):
        shape = (runs, tasks, 1) if meta else (1, tasks, runs)
        scores = cube(np.random.default_rng([seed, tasks, runs]).normal(size=shape))
        interval = bootstrap([scores], statistic, np.random.default_rng(seed), resamples=400)
        hits += interval.low <= 0.0 <= interval.high
    return hits / simulations


def test_three_runs_of_one_task_hold_the_truth_three_times_in_four():
    """All three draws are the smallest run in 1/27 > 2.5 % of the resamples: the interval is [min, max], missed with odds 2 / 2^3."""
    runs = np.random.default_rng(0).normal(size=3)
    assert bootstrap([cube(runs[None, None])], overall_mean, seeded()) == Interval(pytest.approx(runs.mean()), runs.min(), runs.max())


def test_ten_tasks_of_five_seeds_are_covered_less_than_promised():
    assert 0.82 <= coverage(10, 5, overall_mean, 200) <= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tasks", "runs", "statistic", "expected"),
    [
        (1, 3, overall_mean, 0.75),
        (1, 5, overall_mean, 0.84),
        (1, 10, overall_mean, 0.90),
        (10, 3, overall_mean, 0.87),
        (10, 5, overall_mean, 0.92),
        (10, 10, overall_mean, 0.93),
        (10, 3, interquartile_mean, 0.89),
        (10, 5, interquartile_mean, 0.92),
        (10, 10, interquartile_mean, 0.94),
    ],
)
def test_coverage_of_normal_scores_is_what_is_documented(tasks, runs, statistic, expected):
    """The documented values come from 3000 simulations of 1000 resamples; the standard error of a share here is below 0.012."""
    assert coverage(tasks, runs, statistic, 1500) == pytest.approx(expected, abs=0.03)


@pytest.mark.slow
def test_meta_seeds_are_covered_like_so_many_runs():
    """Scores that differ between meta-seeds only: five of them are five runs, however many tasks and inner seeds there are."""
    hits = 0
    for seed in range(600):
        between = np.random.default_rng(seed).normal(size=(5, 1, 1))
        interval = bootstrap([cube(np.broadcast_to(between, (5, 12, 4)))], overall_mean, np.random.default_rng(seed), resamples=300)
        hits += interval.low <= 0.0 <= interval.high
    assert hits / 600 == pytest.approx(0.83, abs=0.05)


def test_identical_learners_have_even_odds_inside_their_interval():
    scores = random_cube(4, tasks=8)
    interval = bootstrap([scores, scores], probability_of_improvement, seeded())
    assert interval.value == 0.5
    assert interval.low <= 0.5 <= interval.high
