"""Scores of single runs, on curves whose answers are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from metaopt.evaluation.scores.run_scores import (
    anytime_area,
    failed_runs,
    failure_rate,
    failure_reasons,
    final_loss_score,
    score_runs,
    smooth,
)

STEPS = np.array([0.0, 10.0, 20.0, 30.0, 40.0])
# One run each: good, ends above its start, never moves, not finite, diverged.
CURVES = np.array(
    [[1.0, 0.8, 0.6, 0.5, 0.4], [1.0, 0.8, 0.6, 0.5, 1.1], [1.0] * 5, [1.0, 0.8, np.nan, 0.5, 0.4], [1.0, 0.8, 0.6, 0.5, 0.4]]
).T
DIVERGED = np.array([False, False, False, False, True])


def test_smoothing_is_unbiased_and_weights_the_past_geometrically():
    assert smooth(np.full(5, 0.7)) == pytest.approx(np.full(5, 0.7))
    assert smooth(np.array([1.0, 0.0, 0.0]), decay=0.5) == pytest.approx([1.0, 0.5 / 1.5, 0.25 / 1.75])
    two = np.stack([np.arange(4.0), np.ones(4)], axis=1)
    assert smooth(two)[:, 1] == pytest.approx(np.ones(4))


def test_smoothing_equals_the_weighted_mean_of_the_past():
    curve = np.random.default_rng(0).normal(size=12)
    for i in range(12):
        weights = 0.95 ** np.arange(i, -1, -1)
        assert smooth(curve, 0.95)[i] == pytest.approx((weights * curve[: i + 1]).sum() / weights.sum())


def test_the_final_loss_score_is_zero_for_nothing_and_one_for_the_reference():
    first, final = np.array([2.0, 2.0, 2.0, 2.0]), np.array([2.0, 1.2, 0.5, 0.4])
    assert final_loss_score(first, final, np.array(0.5), np.zeros(4, dtype=bool)) == pytest.approx([0.0, 0.8 / 1.5, 1.0, 1.6 / 1.5])
    exact = final_loss_score(first, first, np.array(0.3), np.zeros(4, dtype=bool))
    assert (exact == 0.0).all(), "a learner that does nothing scores exactly 0"


def test_failed_runs_score_zero_whatever_their_loss():
    final = np.array([np.nan, np.inf, 10.0, 0.1])
    scores = final_loss_score(np.ones(4), final, np.array(0.2), np.array([True, True, True, False]))
    assert scores.tolist() == [0.0, 0.0, 0.0, pytest.approx(1.125)]


@given(st.floats(0.1, 10), st.floats(-5, 5), st.integers(0, 1000))
def test_the_final_loss_score_does_not_know_the_unit_of_the_loss(scale, shift, seed):
    generator = np.random.default_rng(seed)
    final, reference = generator.uniform(0.0, 1.0, size=(3, 5)), generator.uniform(0.0, 0.5, size=(3, 1))
    first, failed = np.ones((3, 5)), generator.uniform(size=(3, 5)) < 0.2
    one = final_loss_score(first, final, reference, failed)
    assert final_loss_score(scale * first + shift, scale * final + shift, scale * reference + shift, failed) == pytest.approx(one, abs=1e-9)
    assert (one >= 0).all()
    assert (one[failed] == 0).all()


def test_a_reference_that_learns_nothing_gives_no_scale():
    with pytest.raises(ValueError, match="reference must end below the first loss, but does not in 1 of 2 runs"):
        final_loss_score(np.ones(2), np.ones(2), np.array([0.5, 1.0]), np.zeros(2, dtype=bool))
    with pytest.raises(ValueError, match="reference must end below"):
        final_loss_score(np.ones(2), np.ones(2), np.array(np.nan), np.zeros(2, dtype=bool))


def test_anytime_area_of_constants_and_of_an_early_fall():
    assert anytime_area(STEPS, np.full((5, 2), 0.3)) == pytest.approx([0.3, 0.3])
    early, late = np.array([1.0, 0.1, 0.1, 0.1, 0.1]), np.array([1.0, 1.0, 1.0, 1.0, 0.1])
    area = anytime_area(STEPS, np.stack([early, late], axis=1))
    assert area[0] < area[1] < 1.0


def test_anytime_area_of_a_line_over_log_steps_is_its_middle():
    steps = np.expm1(np.linspace(0.0, 5.0, 30))
    assert anytime_area(steps, np.linspace(1.0, 0.2, 30)[:, None]) == pytest.approx([0.6])


def test_failures_are_divergence_non_finite_losses_and_ending_above_the_start():
    assert failure_reasons(CURVES, DIVERGED) == (None, "ends above its first loss", None, "loss not finite", "diverged")
    assert failed_runs(CURVES, DIVERGED).tolist() == [False, True, False, True, True]


def test_a_loss_that_was_never_finite_is_not_called_worse_than_its_start():
    never = np.full((3, 1), np.nan)
    assert failure_reasons(never, np.array([False])) == ("loss not finite",)
    assert failure_reasons(np.full((3, 1), np.inf), np.array([False])) == ("loss not finite",)


def test_training_and_held_out_scores_stand_side_by_side():
    scores = score_runs(STEPS, CURVES, CURVES - 0.1, DIVERGED, 10.0)
    assert scores.first_loss.tolist() == [1.0] * 5
    assert scores.final_loss.tolist() == [0.4, 10.0, 1.0, 10.0, 10.0]
    assert scores.final_train_loss == pytest.approx([0.3, 10.0, 0.9, 10.0, 10.0])
    assert scores.generalisation_gap == pytest.approx([0.1, 0.0, 0.1, 0.0, 0.0])
    assert scores.anytime[0] == pytest.approx(anytime_area(STEPS, CURVES)[0])
    assert scores.anytime_train[0] == pytest.approx(anytime_area(STEPS, CURVES - 0.1)[0])
    assert scores.anytime[[1, 3, 4]].tolist() == scores.anytime_train[[1, 3, 4]].tolist() == [10.0] * 3
    assert scores.failed.tolist() == [False, True, False, True, True]


def test_no_score_is_ever_not_finite():
    held = np.array([[np.nan, 1.0], [np.nan, 0.5]])
    train = np.array([[1.0, np.inf], [np.inf, np.inf]])
    scores = score_runs(STEPS[:2], held, train, np.zeros(2, dtype=bool), 10.0)
    assert scores.first_loss.tolist() == [10.0, 1.0]
    assert scores.final_train_loss.tolist() == [10.0, 10.0]
    for one in (scores.final_loss, scores.anytime, scores.anytime_train, scores.generalisation_gap):
        assert np.isfinite(one).all()


def test_no_failure_in_many_runs_still_leaves_room_for_some():
    none = failure_rate(0, 120)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 120))  # closed form; about 3 %
    every = failure_rate(40, 40)
    assert (every.low, every.value, every.high) == (pytest.approx(0.025 ** (1 / 40)), 1.0, 1.0)


@pytest.mark.parametrize(("failures", "runs"), [(1, 40), (7, 40), (39, 40)])
def test_the_ends_of_a_failure_rate_are_where_the_binomial_tail_is_one_fortieth(failures, runs):
    rate = failure_rate(failures, runs)
    assert rate.low < rate.value == failures / runs < rate.high
    assert binom.sf(failures - 1, runs, rate.low) == pytest.approx(0.025)
    assert binom.cdf(failures, runs, rate.high) == pytest.approx(0.025)


@pytest.mark.parametrize(("failures", "runs"), [(-1, 4), (5, 4), (0, 0)])
def test_impossible_counts_are_refused(failures, runs):
    with pytest.raises(ValueError, match="failures must be in"):
        failure_rate(failures, runs)
