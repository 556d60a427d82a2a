"""Steps-to-loss speed-up against both references, on curves whose answers are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.evaluation.scores.run_scores import smooth
from metaopt.evaluation.scores.speedup import (
    CONSTANT_RATE_SMOOTHING,
    constant_rate_envelope,
    matched_decay,
    reference_envelope,
    speed_up,
    steps_to_loss,
    wall_clock_speed_up,
)

STEPS = np.array([0.0, 10.0, 20.0, 30.0, 40.0])


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


@given(st.lists(st.integers(1, 20), min_size=2, max_size=20), st.integers(0, 21))
def test_steps_to_loss_is_the_first_crossing_on_a_fine_grid(curve, below):
    """Losses in tenths, targets between them, so that a grid of hundredths of a step sees every crossing."""
    losses, target = np.array(curve) / 10, below / 10 + 0.05
    steps = np.arange(len(curve), dtype=float)
    fine = np.linspace(0.0, steps[-1], 100 * (len(curve) - 1) + 1)
    reached = np.interp(fine, steps, np.minimum.accumulate(losses)) <= target
    expected = fine[reached.argmax()] if reached.any() else np.inf
    assert steps_to_loss(steps, losses, target) == pytest.approx(expected, abs=0.011)


def line(horizon, start=1.0, end=0.2, points=41):
    return np.linspace(0, horizon, points), np.linspace(start, end, points)


def test_a_learner_that_repeats_the_reference_has_speed_up_one():
    steps, losses = line(40)
    ratio, censored = speed_up(losses, 40, reference_envelope({40: (steps, losses)}))
    assert ratio == pytest.approx(1.0)
    assert not censored


def test_rounding_does_not_throw_a_repetition_onto_the_stretched_run():
    """The stretched run is still at 0.7 where the first one ends at 0.4: a loss that is lower by rounding only must not need it."""
    steps, losses = line(40, end=0.4)
    reference = reference_envelope({40: (steps, losses), 160: line(160, end=0.1)})
    assert speed_up(losses * (1 - 1e-12), 40, reference)[0] == pytest.approx(1.0, abs=1e-6)
    assert speed_up(losses * (1 - 1e-4), 40, reference)[0] > 1.5
    assert steps_to_loss(steps, losses, 0.4 - 1e-12) == 40.0
    assert steps_to_loss(steps, losses, 0.4 - 1e-6) == np.inf


def test_a_constant_rate_as_a_learner_has_speed_up_one_over_its_own_archive():
    """Four horizons with as many points as one: smoothed by the learner's decay a point, it would seem to take far longer."""

    def fall(clock):
        return np.exp(-clock / 20.0)

    steps, archive = np.linspace(0.0, 40.0, 41), np.linspace(0.0, 160.0, 41)
    curves = np.tile(fall(archive)[None, :, None], (14, 1, 5))
    ratios = [
        speed_up(fall(steps), 40, constant_rate_envelope(archive, curves, decay), CONSTANT_RATE_SMOOTHING)[0]
        for decay in (matched_decay(archive, steps), CONSTANT_RATE_SMOOTHING)
    ]
    assert ratios[0] == pytest.approx(1.0, abs=0.1)
    assert ratios[1] > 1.3
    assert matched_decay(steps, steps) == CONSTANT_RATE_SMOOTHING


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


def falling(factor, horizon=400):
    """A loss that does not know its horizon, measured at 41 points of a run of `factor` horizons."""
    steps = np.linspace(0, factor * horizon, 41)
    return steps, 0.1 + 0.9 * np.exp(-3 * steps / horizon)


def test_better_by_a_hair_is_faster_by_a_hair():
    """Longer runs have fewer points a step: if they lagged for longer, the hair would be worth 1.1 to 1.3 (it was)."""
    reference = reference_envelope({400 * factor: falling(factor) for factor in (1, 2, 4)})
    hair = speed_up(falling(1)[1] - 1e-4, 400, reference)[0]
    assert 1.0 < hair < 1.05
    assert speed_up(falling(1)[1] + 1e-4, 400, reference)[0] == pytest.approx(1.0, abs=0.01)


def test_the_window_of_the_reference_is_the_learners_and_then_grows_with_the_step():
    """Up to T the plain average of the run; at the end of longer ones theirs; in between, of a window of a tenth of the step."""
    runs = {400 * factor: falling(factor) for factor in (1, 2, 4)}
    steps, losses = reference_envelope(runs)
    assert losses[:41] == pytest.approx(smooth(runs[400][1]))
    for horizon in (800, 1600):
        assert losses[steps == horizon] == pytest.approx(smooth(runs[horizon][1])[-1:])
    at = 1000  # point 25 of the longest run, which has one every 40 steps; the learner has 40 points of T = 400
    decay = 0.9 ** (40 / 10 * 400 / at)
    weights = decay ** np.arange(25, -1, -1)
    assert losses[steps == at] == pytest.approx((weights * runs[1600][1][:26]).sum() / weights.sum())


def rates(seed, rates=4, points=21, seeds=3):
    """Falling, noisy curves [L, E, S] of several constant rates; the last rate blows up on one seed half-way."""
    generator = np.random.default_rng(seed)
    ends = generator.uniform(0.1, 0.9, size=(rates, 1, 1))
    curves = 1.0 + (ends - 1.0) * np.linspace(0.0, 1.0, points)[None, :, None] + 0.02 * generator.normal(size=(rates, points, seeds))
    curves[-1, points // 2 :, 0] = np.inf
    return np.arange(points) * 10.0, curves


def test_the_constant_rate_envelope_equals_loops():
    steps, curves = rates(0)
    lowest, expected = np.inf, []
    for e in range(len(steps)):
        for curve in curves:
            past = curve[: e + 1]
            if np.isfinite(past).all():
                weights = CONSTANT_RATE_SMOOTHING ** np.arange(e, -1, -1)
                lowest = min(lowest, (weights * past.mean(axis=1)).sum() / weights.sum())
        expected.append(lowest)
    at, losses = constant_rate_envelope(steps, curves)
    assert losses == pytest.approx(expected)
    assert (at == steps).all()


def test_one_rate_is_its_own_envelope_and_more_rates_only_lower_it():
    steps, curves = rates(1)
    alone = constant_rate_envelope(steps, curves[:1])[1]
    assert alone == pytest.approx(np.minimum.accumulate(smooth(curves[0].mean(axis=1), CONSTANT_RATE_SMOOTHING)))
    together = constant_rate_envelope(steps, curves)[1]
    assert (together <= alone + 1e-12).all()
    assert (constant_rate_envelope(steps, curves[::-1])[1] == together).all()


def test_a_rate_that_blew_up_stays_out_when_its_loss_comes_back():
    steps, curves = rates(2)
    out, back = curves.copy(), curves.copy()
    out[-1, 10:] = np.inf
    back[-1, 10:] = -5.0
    without_gap = constant_rate_envelope(steps, back)[1]
    back[-1, 10, 0] = np.nan
    expected = constant_rate_envelope(steps, out)[1]
    assert (constant_rate_envelope(steps, back)[1] == expected).all()
    assert (without_gap[10:] < expected[10:]).all()


def test_adam_at_a_constant_rate_has_speed_up_one_over_its_own_envelope():
    steps, losses = line(400)
    for known in ({}, {"decay": 0.5}):
        envelope = constant_rate_envelope(steps, losses[None, :, None], **known)
        ratio, censored = speed_up(losses, 400, envelope, known.get("decay", CONSTANT_RATE_SMOOTHING))
        assert (ratio, censored) == (pytest.approx(1.0), False)


def test_an_archive_saturates_at_its_length():
    """The learner used a tenth of the archive's steps and ended lower than anything in it: at least 10, flagged."""
    steps, losses = line(400, end=0.5)
    envelope = constant_rate_envelope(steps, losses[None, :, None])
    assert speed_up(np.linspace(1.0, 0.0, 41), 40, envelope, CONSTANT_RATE_SMOOTHING) == (10.0, True)


def test_a_learner_that_never_moves_scores_exactly_zero_against_any_reference():
    """Also against an envelope whose other seeds began higher: such a learner got nowhere."""
    steps, losses = line(40)
    still = np.full(41, losses[0])
    assert speed_up(still, 40, reference_envelope({40: (steps, losses)})) == (0.0, False)
    higher = constant_rate_envelope(steps, losses[None, :, None] + 0.3)
    assert speed_up(still, 40, higher, CONSTANT_RATE_SMOOTHING) == (0.0, False)
    assert speed_up(np.linspace(1.0, 5.0, 41), 40, higher) == (0.0, False)
    assert speed_up(np.full(41, np.nan), 40, higher) == (0.0, False)


@given(st.floats(0.1, 10.0), st.floats(-1.0, 1.0), st.integers(0, 100))
def test_speed_ups_do_not_know_the_unit_of_the_loss(scale, shift, seed):
    steps, curves = rates(seed)
    learner = curves[0, :, 1]
    one = speed_up(learner, 200, constant_rate_envelope(steps, curves))
    other = speed_up(scale * learner + shift, 200, constant_rate_envelope(steps, scale * curves + shift))
    assert other[0] == pytest.approx(one[0], abs=1e-6)
    assert 0.0 <= one[0] <= 1.0


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        (np.ones((2, 4, 3)), r"curves must be \[rates, 5 points, seeds\], got shape \(2, 4, 3\)"),
        (np.ones((5, 3)), "curves must be"),
        (np.ones((0, 5, 3)), "curves must be"),
        (np.full((2, 5, 3), np.nan), "no rate has a finite loss at the first point"),
    ],
)
def test_archives_that_hold_nothing_are_refused(curves, message):
    with pytest.raises(ValueError, match=message):
        constant_rate_envelope(STEPS, curves)


def test_a_horizon_of_nothing_is_refused():
    with pytest.raises(ValueError, match="horizon must be >= 1, got 0"):
        speed_up(np.ones(5), 0, line(40))


def test_wall_clock_speed_up_pays_for_dear_steps():
    assert wall_clock_speed_up(2.0, 0.4, 0.2) == 1.0
    assert wall_clock_speed_up(1.0, 0.1, 0.1) == 1.0
    assert wall_clock_speed_up(0.0, 0.1, 0.3) == 0.0
    for times in ((0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="seconds of a step must be > 0"):
            wall_clock_speed_up(1.0, *times)
