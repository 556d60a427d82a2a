"""Expected best of K: enumeration, the closed form, the bootstrap."""

from itertools import product

import numpy as np
import pytest

from metaopt.baselines import expected_best, expected_best_of_k

FINALS = np.array([0.4, 0.1, 0.9, 0.4, 2.0])


def expected_minimum(finals, k):
    """The best of K, picked by the loss that it is worth."""
    return float(expected_best(finals, finals, k))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_closed_form_is_the_mean_over_all_draws(k):
    every = np.mean([min(draw) for draw in product(FINALS, repeat=k)])
    assert expected_minimum(FINALS, k) == pytest.approx(every, rel=1e-12)


@pytest.mark.parametrize("k", [1, 5, 15])
def test_the_bootstrap_tends_to_the_closed_form(k):
    finals = np.random.default_rng(0).exponential(size=40)
    draws = 20_000
    chosen = [expected_best_of_k(finals, k, draws, seed) for seed in range(3)]
    error = finals.std() / np.sqrt(draws)
    assert chosen == pytest.approx([expected_minimum(finals, k)] * 3, abs=5 * error)


def test_one_trial_is_the_mean_and_many_are_the_minimum():
    assert expected_minimum(FINALS, 1) == pytest.approx(FINALS.mean())
    assert expected_minimum(FINALS, 1000) == pytest.approx(FINALS.min())
    values = [expected_minimum(FINALS, k) for k in range(1, 30)]
    assert values == sorted(values, reverse=True)


def test_order_does_not_matter_and_a_seed_fixes_the_number():
    assert expected_minimum(FINALS[::-1], 3) == pytest.approx(expected_minimum(FINALS, 3), rel=1e-14)
    assert expected_best_of_k(FINALS, 3, 50, 7) == expected_best_of_k(FINALS, 3, 50, 7)
    assert expected_best_of_k(FINALS, 3, 50, 7) != expected_best_of_k(FINALS, 3, 50, 8)


def test_equal_trials_have_no_spread():
    assert expected_minimum(np.full(6, 0.25), 4) == pytest.approx(0.25)
    assert expected_best_of_k(np.full(6, 0.25), 4, 10, 0) == 0.25


def test_failed_trials_count():
    finals = np.array([1.0, np.inf])
    assert expected_minimum(finals, 1) == np.inf
    assert expected_minimum(np.array([1.0] * 9 + [np.inf]), 400) == pytest.approx(1.0), "a chance that underflows is none"
    assert expected_best_of_k(finals, 60, 100, 0) == 1.0


@pytest.mark.parametrize(("finals", "k"), [([], 1), ([0.1, np.nan], 1), ([0.1], 0), ([[0.1]], 1)])
def test_bad_input(finals, k):
    with pytest.raises(ValueError, match="expected_best takes N >= 1 losses"):
        expected_minimum(np.array(finals), k)
    with pytest.raises(ValueError, match=r"finals must hold|draws must be"):
        expected_best_of_k(np.array(finals), k, 0, 0)
