"""Scores of single runs, on curves whose answers are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.evaluation.scores import anytime_area, failed_runs, reference_envelope, smooth, speed_up, steps_to_loss

STEPS = np.array([0.0, 10.0, 20.0, 30.0, 40.0])


def test_smoothing_is_unbiased_and_weights_the_past_geometrically():
    assert smooth(np.full(5, 0.7)) == pytest.approx(np.full(5, 0.7))
    assert smooth(np.array([1.0, 0.0, 0.0]), decay=0.5) == pytest.approx([1.0, 0.5 / 1.5, 0.25 / 1.75])
    two = np.stack([np.arange(4.0), np.ones(4)], axis=1)
    assert smooth(two)[:, 1] == pytest.approx(np.ones(4))


@pytest.mark.parametrize(
    ("loss", "steps"),
    [(2.0, 0.0), (1.0, 0.0), (0.9, 5.0), (0.8, 10.0), (0.6, 20.0), (0.5, 35.0), (0.4, 40.0), (0.39, np.inf)],
)
def test_steps_to_loss_inverts_the_running_minimum(loss, steps):
    """The bump at step 30 must not matter: the running minimum stays 0.6 there and falls from it to 0.4."""
    curve = np.array([1.0, 0.8, 0.6, 0.9, 0.4])
    assert steps_to_loss(STEPS, curve, loss) == pytest.approx(steps)


@given(st.lists(st.floats(0.01, 2.0), min_size=2, max_size=20), st.floats(0.01, 2.0), st.floats(0.01, 2.0))
def test_a_lower_loss_never_needs_fewer_steps(curve, one, other):
    steps = np.arange(len(curve), dtype=float)
    low, high = sorted((one, other))
    assert steps_to_loss(steps, np.array(curve), low) >= steps_to_loss(steps, np.array(curve), high)


def line(horizon, start=1.0, end=0.2, points=41):
    return np.linspace(0, horizon, points), np.linspace(start, end, points)


def test_a_learner_that_repeats_the_reference_has_speed_up_one():
    steps, losses = line(40)
    ratio, censored = speed_up(losses, 40, reference_envelope({40: (steps, losses)}))
    assert ratio == pytest.approx(1.0)
    assert not censored


def test_a_learner_as_good_as_the_stretched_reference_has_its_factor():
    """Runs of horizons T, 2 T and 4 T that end at 0.4, 0.3 and 0.2: the loss of the 2 T run is worth 2."""
    reference = reference_envelope({40 * factor: line(40 * factor, end=end) for factor, end in ((1, 0.4), (2, 0.3), (4, 0.2))})
    ratio, _ = speed_up(line(40, end=0.3)[1], 40, reference)
    assert ratio == pytest.approx(2.0, rel=0.02)
    halfway, _ = speed_up(line(40, end=0.7)[1], 40, reference)
    assert halfway == pytest.approx(0.5, abs=0.1)  # both curves lag behind, the steeper one more


def test_beyond_the_longest_reference_is_censored_at_its_length():
    reference = reference_envelope({40: line(40), 160: line(160)})
    assert speed_up(np.linspace(1.0, 0.0, 41), 40, reference) == (4.0, True)


def test_a_learner_that_never_moves_scores_exactly_zero():
    steps, losses = line(40)
    assert speed_up(np.full(41, losses[0]), 40, reference_envelope({40: (steps, losses)})) == (0.0, False)


def test_a_longer_schedule_counts_only_beyond_the_shorter_one():
    """A run of 4 T that happens to be fast early must not make the reference look slow at its own horizon."""
    steps, losses = line(40)
    fast = np.linspace(0.0, 160.0, 41), np.concatenate([[1.0], np.full(40, 0.01)])
    reference = reference_envelope({40: (steps, losses), 160: fast})
    assert speed_up(losses, 40, reference)[0] == pytest.approx(1.0)
    assert speed_up(np.linspace(1.0, 0.1, 41), 40, reference)[0] == pytest.approx(1.1, abs=0.1)


def test_the_envelope_never_rises_and_reaches_as_far_as_the_longest_run():
    rising = (np.array([0.0, 20.0, 40.0]), np.array([1.0, 0.3, 0.9]))
    steps, losses = reference_envelope({40: rising, 80: line(80, end=0.1)})
    assert (np.diff(losses) <= 0).all()
    assert steps[0] == 0.0
    assert steps[-1] == 80.0


def test_anytime_area_of_constants_and_of_an_early_fall():
    assert anytime_area(STEPS, np.full((5, 2), 0.3)) == pytest.approx([0.3, 0.3])
    early, late = np.array([1.0, 0.1, 0.1, 0.1, 0.1]), np.array([1.0, 1.0, 1.0, 1.0, 0.1])
    area = anytime_area(STEPS, np.stack([early, late], axis=1))
    assert area[0] < area[1] < 1.0


def test_failures_are_divergence_non_finite_losses_and_ending_above_the_start():
    good, worse, same = [1.0, 0.5, 0.4], [1.0, 0.5, 1.1], [1.0, 1.0, 1.0]
    broken = [1.0, np.nan, 0.4]
    curves = np.array([good, worse, same, broken, good]).T
    diverged = np.array([False, False, False, False, True])
    assert failed_runs(curves, diverged).tolist() == [False, True, False, True, True]
