"""Weighted CDF features: the sums equal the formula over the whole history, and neither unit, offset nor sampling matters."""

import math

import pytest
import torch
from torch.special import ndtr

from metaopt.learners.policies import END_WEIGHTS, CdfState, cdf_push, cdf_start

INF, NAN = math.inf, math.nan


def direct(history):
    """The formula as it is defined, two passes over x_1 .. x_k [k], by exactly rounded sums."""
    history = [x - history[-1] for x in history]  # else the mean of values far from 0 is rounded by more than the sums are
    k, features = len(history), []
    for end in END_WEIGHTS:
        weights = [1 + (end - 1) * (i - 0.5) / k for i in range(1, k + 1)]
        total = math.fsum(weights)
        mean = math.fsum(w * x for w, x in zip(weights, history, strict=True)) / total
        variance = math.fsum(w * (x - mean) ** 2 for w, x in zip(weights, history, strict=True)) / total
        z = (history[-1] - mean) / math.sqrt(variance) if variance > 0 and k > 1 else 0.0
        features.append(0.5 * math.erfc(-z / math.sqrt(2)))
    return torch.tensor(features, dtype=torch.float64)


def observe(values, noise=0.0):
    """Features [k, ..., E] at all decisions of values [k, ...]."""
    values = torch.as_tensor(values, dtype=torch.float64)
    state, rows = cdf_start(tuple(values.shape[1:])), []
    for x in values:
        state, features = cdf_push(state, x, noise)
        rows.append(features)
    return torch.stack(rows)


def test_the_end_weights_are_the_published_ones():
    """By hand, after decisions 0 and 1 with an end weight W: weights 1 + (W - 1) / 4 and 1 + 3 (W - 1) / 4, hence z = sqrt(w_1 / w_2)."""
    found = observe([0.0, 1.0])[-1]
    for feature, end in zip(found, (1.25, 2.5, 5.0, 10.0, 20.0), strict=True):
        z = math.sqrt((1 + (end - 1) / 4) / (1 + 3 * (end - 1) / 4))
        assert float(feature) == pytest.approx(0.5 * math.erfc(-z / math.sqrt(2)), rel=1e-12)


def walk(decisions, seed=0):
    steps = torch.randn(decisions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 0.1 * steps.cumsum(0) + 0.3 * steps.flip(0)


def falling(decisions, rate=5.0):
    progress = torch.arange(1, decisions + 1, dtype=torch.float64) / decisions
    return torch.exp(-rate * progress)


# The two last make cancellation as bad as it gets: one early value far off, then changes that are small beside it.
HISTORIES = {
    "walk": walk(1000),
    "falling": falling(1000),
    "far start": torch.cat([torch.tensor([1e6], dtype=torch.float64), 1e-3 * walk(999)]),
    "far offset": 1e6 + walk(1000),
}


def test_sums_equal_the_formula_over_a_thousand_decisions():
    columns = [values * scale for values in HISTORIES.values() for scale in (1e-20, 1.0, 1e20)]
    features = observe(torch.stack(columns, dim=1))
    for column, values in enumerate(columns):
        for k in (1, 2, 10, 1000):
            torch.testing.assert_close(features[k - 1, column], direct(values[:k].tolist()), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("a", "b"), [(1e-20, 0.0), (1e20, 0.0), (3.7, -2.0), (0.1, 1e3), (1e-3, 0.5)])
def test_unit_and_offset_do_not_matter(a, b):
    values = walk(200)
    torch.testing.assert_close(observe(a * values + b), observe(values), rtol=0, atol=1e-9)


def test_turning_the_sign_turns_the_feature():
    values = walk(50)
    torch.testing.assert_close(observe(-values), 1 - observe(values), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shift", [-40, 40])
def test_a_power_of_two_changes_no_bit(shift):
    values = walk(100)
    assert torch.equal(observe(values * 2.0**shift), observe(values))


@pytest.mark.parametrize("curve", [lambda k: falling(k, 4.0), falling, lambda k: 1 / (1 + 10 * torch.arange(1, k + 1) / k)])
def test_the_number_of_decisions_hardly_matters(curve):
    few, many = observe(curve(16)), observe(curve(128))
    for at in (8, 12, 16):  # at equal progress
        assert abs(float(few[at - 1, 0] - many[8 * at - 1, 0])) < 0.02
    assert 0.15 < float(many[-1, 0]) < 0.25


def test_a_straight_line_has_the_moments_of_its_density():
    # Positions q with density 2 (1 + (W - 1) q) / (1 + W): the limit of many decisions.
    features = observe(torch.arange(1000))[-1]
    for end, feature in zip(END_WEIGHTS, features, strict=True):
        mean, square = (2 / (1 + end) * (1 / (n + 1) + (end - 1) / (n + 2)) for n in (1, 2))
        expected = ndtr(torch.tensor((1 - mean) / math.sqrt(square - mean**2)))
        assert float(feature) == pytest.approx(float(expected), abs=1e-3)


def test_a_larger_end_weight_forgets_sooner():
    step = torch.cat([torch.zeros(50), torch.linspace(1.0, 1.1, 50)])
    features = observe(step)[-1]
    assert (features.diff() < 0).all()  # the more of the new level it sees, the less its last value stands out


def test_noise_hides_what_rounding_moves_and_nothing_else():
    values = walk(100)
    assert (observe(2.0 + 1e-8 * values, noise=1e-5) - 0.5).abs().max() < 1e-2
    assert (observe(2.0 + 1e-8 * values) - 0.5).abs().max() > 0.4
    torch.testing.assert_close(observe(values, noise=1e-5), observe(values), rtol=0, atol=1e-6)
    found = observe([0.0, 2.0], noise=1.0)[-1, 0]  # end weight 1.25: the weights are 1.0625 and 1.1875
    first, second = 1.0625 / 2.25, 1.1875 / 2.25
    z = 2 * first / math.sqrt(4 * first * second + 1)
    assert float(found) == pytest.approx(0.5 * math.erfc(-z / math.sqrt(2)), rel=1e-12)


@pytest.mark.parametrize("values", [[3.0], [0.1] * 40, [1e20] * 3, [NAN, 2.0, 2.0]])
def test_nothing_known_is_one_half(values):
    assert torch.equal(observe(values)[-1], torch.full((5,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("bad", [NAN, INF, -INF, 1e200])
def test_a_value_that_is_not_finite_is_the_worst_and_repeats_the_last_in_the_history(bad):
    broken, carried = observe([1.0, 2.0, bad, bad, 1.5]), observe([1.0, 2.0, 2.0, 2.0, 1.5])
    assert (broken[2:4] == 1.0).all()
    assert torch.equal(broken[[0, 1, 4]], carried[[0, 1, 4]])


def test_before_the_first_finite_value_the_history_is_that_value():
    broken, filled = observe([NAN, INF, 2.0, 1.0]), observe([2.0, 2.0, 2.0, 1.0])
    assert (broken[:2] == 1.0).all()
    assert torch.equal(broken[2:], filled[2:])


def test_features_do_not_meet():
    values = torch.stack([walk(30, 0), walk(30, 1), torch.full((30,), NAN)], dim=1)
    together = observe(values)
    for column in range(3):
        assert torch.equal(together[:, column], observe(values[:, column]))


def test_a_saved_history_goes_on_with_the_same_bits(tmp_path):
    values, state = walk(40), cdf_start()
    for x in values[:17]:
        state, _ = cdf_push(state, x)
    torch.save(state._asdict(), tmp_path / "cdf.pt")
    again = CdfState(**torch.load(tmp_path / "cdf.pt", weights_only=True))
    for x in values[17:]:
        state, features = cdf_push(state, x)
        again, same = cdf_push(again, x)
        assert torch.equal(features, same)
    assert all(torch.equal(a, b) for a, b in zip(state, again, strict=True))


def test_vmap_equals_a_loop_and_mutates_nothing():
    values = torch.stack([walk(6, seed) for seed in range(3)], dim=1)
    values[2, 1] = NAN
    state = CdfState(*(torch.stack([t] * 3) for t in cdf_start()))
    kept = CdfState(*(t.clone() for t in state))
    batched, rows = state, []
    for x in values:
        batched, features = torch.func.vmap(cdf_push)(batched, x)
        rows.append(features)
    torch.testing.assert_close(torch.stack(rows), observe(values), rtol=0, atol=1e-14)
    assert all(torch.equal(a, b) for a, b in zip(state, kept, strict=True))
