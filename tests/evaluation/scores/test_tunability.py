"""Expected best of K against enumeration of all draws, closed forms, and properties."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.evaluation.scores.tunability import expected_best, tunability


def enumerated(tuning, outcome, trials):
    """Mean over all ordered draws with replacement; the best is picked by tuning loss, ties share."""
    total = 0.0
    for draw in itertools.product(range(len(tuning)), repeat=trials):
        best = min(tuning[i] for i in draw)
        equal = [i for i in range(len(tuning)) if tuning[i] == best]  # who of the equal ones was drawn is as likely as another
        total = total + np.mean([outcome[i] for i in equal], axis=0)
    return total / len(tuning) ** trials


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5)), min_size=1, max_size=5), st.integers(1, 4))
def test_expected_best_equals_the_enumeration_of_all_draws(recorded, trials):
    tuning, outcome = np.array([float(a) for a, _ in recorded]), np.array([b for _, b in recorded])
    assert expected_best(tuning, outcome, trials) == pytest.approx(enumerated(tuning, outcome, trials), abs=1e-9)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=20), st.integers(1, 20))
def test_picked_and_scored_by_one_loss_it_is_the_expected_minimum(losses, trials):
    """The i-th lowest of N is the lowest of K draws with probability ((N - i + 1) / N)^K - ((N - i) / N)^K."""
    tuning, left = np.array(losses), (np.arange(len(losses), -1, -1) / len(losses)) ** trials
    assert expected_best(tuning, tuning, trials) == pytest.approx(float((np.sort(tuning) * (left[:-1] - left[1:])).sum()), abs=1e-9)


def test_one_trial_is_the_mean_and_very_many_the_best():
    tuning, outcome = np.array([0.3, 0.1, 0.2]), np.array([3.0, 1.0, 2.0])
    assert expected_best(tuning, outcome, 1) == pytest.approx(2.0)
    assert expected_best(tuning, outcome, 200) == pytest.approx(1.0)
    assert expected_best(tuning, tuning, 2) == pytest.approx((0.1 * 5 + 0.2 * 3 + 0.3) / 9)


def test_the_best_of_uniform_trials_is_one_over_k_plus_one():
    losses = (np.arange(2000) + 0.5) / 2000
    for trials in (1, 5, 15):
        assert expected_best(losses, losses, trials) == pytest.approx(1 / (trials + 1), abs=1e-3)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_more_trials_never_hurt_and_order_does_not_matter(losses, random):
    tuning = np.array(losses)
    best = [float(expected_best(tuning, tuning, k)) for k in (1, 2, 5, 20)]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(best))
    shuffled = np.array(random.sample(losses, len(losses)))
    assert expected_best(shuffled, shuffled, 5) == pytest.approx(best[2], abs=1e-9)


def test_a_trial_is_picked_on_tuning_seeds_and_scored_on_others():
    """The luckiest trial of tuning is nothing special elsewhere: no gain from trials that differ by luck only."""
    generator = np.random.default_rng(0)
    tuning, outcome = generator.normal(size=400), generator.normal(size=400)
    assert expected_best(tuning, tuning, 15) < -1.5
    assert abs(expected_best(tuning, outcome, 15)) < 0.3


def test_outcomes_may_have_axes_of_their_own():
    tuning, outcome = np.array([0.3, 0.1, 0.2]), np.arange(24.0).reshape(3, 2, 4)
    together = expected_best(tuning, outcome, 3)
    assert together.shape == (2, 4)
    assert together[1, 2] == pytest.approx(expected_best(tuning, outcome[:, 1, 2], 3))


def test_failed_trials_are_picked_last_but_are_there():
    tuning, outcome = np.array([np.inf, 0.1, np.inf]), np.array([10.0, 0.2, 10.0])
    assert expected_best(tuning, outcome, 1) == pytest.approx(20.2 / 3)
    assert expected_best(tuning, outcome, 2) == pytest.approx(0.2 * 5 / 9 + 10.0 * 4 / 9)


def test_tunability_is_the_default_and_what_trials_buy():
    tuning = np.array([0.4, 0.2, 0.9, 0.3])
    found = tunability(np.array(0.5), tuning, tuning)
    assert float(found.default) == 0.5
    assert list(found.after) == [5, 15]
    assert found.after[15] < found.after[5] < found.default
    assert tunability(np.array(0.5), tuning, tuning, trials=(20,)).after[20] == expected_best(tuning, tuning, 20)
    fixed = tunability(np.array(0.5), np.zeros(1), np.array([0.5]))
    assert fixed.after == {5: 0.5, 15: 0.5}, "what cannot be tuned stays where it is"


@pytest.mark.parametrize(
    ("tuning", "outcome", "trials"),
    [
        (np.empty(0), np.empty(0), 1),
        (np.ones(2), np.ones(3), 1),
        (np.ones((2, 1)), np.ones(2), 1),
        (np.array([1.0, np.nan]), np.ones(2), 1),
        (np.ones(2), np.ones(2), 0),
    ],
)
def test_bad_records_are_refused(tuning, outcome, trials):
    with pytest.raises(ValueError, match="expected_best takes N >= 1 losses"):
        expected_best(tuning, outcome, trials)
