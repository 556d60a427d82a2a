"""All estimators against exact derivatives: on influence balancing, on a smooth recurrence, and on a quadratic meta-loss."""

import itertools

import pytest
import torch

from metaopt.errors import ConfigError
from metaopt.estimators import ESTIMATORS, evolution, flatten, noise_reuse
from tests.estimators.test_evolution import Parabola, exact_derivative
from tests.oracles import smooth
from tests.oracles.influence_balancing import TRUTH, Balancing, Endless, member_estimates, standard_error

EVOLUTION = ("pes", "gpes", "nres", "es_single", "truncated_es", "full_es")


def balancing(name: str, window: int, pairs: int, horizon: int = 100, staggered: bool = False, **options: object) -> torch.Tensor:
    """Each member's mean estimate over an episode (over one and a half, where runs are staggered)."""
    given = {"sigma": 0.1, **options} if name in EVOLUTION else options
    recipe, theta = ESTIMATORS[name](window=window, **given), Balancing().init_theta()
    count = 1 if name.startswith("full") else horizon // window
    skip = count + 1 if staggered else 0
    return member_estimates(recipe, Balancing(), Endless(horizon, staggered), theta, pairs, count, skip)[:, 0]


# Pairs such that the wrong sign is some twenty standard errors away.
@pytest.mark.parametrize(
    ("name", "window", "pairs", "options"),
    [
        ("nres", 1, 3000, {}),
        ("nres", 10, 3000, {}),
        ("nres", 100, 3000, {}),
        ("es_single", 25, 3000, {}),
        ("gpes", 10, 5000, {}),
        ("gpes", 10, 5000, {"reuse_steps": 50}),
        ("gpes", 25, 3000, {"reuse_steps": 100}),
        ("uoro", 25, 3000, {}),
    ],
)
def test_influence_balancing_without_bias(name: str, window: int, pairs: int, options: dict[str, object]) -> None:
    members = balancing(name, window, pairs, **options)
    error = float(standard_error(members))
    assert error < TRUTH / 20
    assert abs(float(members.mean()) - TRUTH) < 4 * error


@pytest.mark.parametrize(
    ("name", "window"), [("full_backprop", 1), ("forward_mode", 10), ("forward_mode", 100), ("truncated_backprop", 100)]
)
def test_influence_balancing_exactly(name: str, window: int) -> None:
    members = balancing(name, window, 1)
    torch.testing.assert_close(members, torch.full_like(members, exact_derivative(100)), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize(("window", "expected"), [(1, -0.26), (10, -1.78), (25, -3.71)])
def test_truncated_backprop_has_the_wrong_sign(window: int, expected: float) -> None:
    assert float(balancing("truncated_backprop", window, 1).mean()) == pytest.approx(expected, abs=0.005)


def test_one_draw_an_episode_has_less_variance_than_one_a_window() -> None:
    # 40,000 pairs have 2.6e3 against 4.4e3; a sample variance of 3,000 is within 10 % of that.
    once, often = (balancing(name, 10, 3000).var() for name in ("nres", "pes"))
    assert once < 0.85 * often


def test_noise_reuse_does_not_see_the_window() -> None:
    fine, coarse = balancing("nres", 5, 50), balancing("nres", 50, 50)
    torch.testing.assert_close(fine, coarse, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "options"), [("nres", {}), ("gpes", {}), ("gpes", {"reuse_steps": 8}), ("forward_mode", {"tangents": 1}), ("uoro", {})]
)
def test_staggered_runs_that_end_inside_windows(name: str, options: dict[str, object]) -> None:
    # Horizon 20 in windows of 4: the starts 0, 2, ..., 18 put half of the ends inside windows.
    members = balancing(name, 4, 2000, horizon=20, staggered=True, **options)
    truth, error = exact_derivative(20), float(standard_error(members))
    assert error < 0.03 * abs(truth)
    assert abs(float(members.mean()) - truth) < 4 * error + 1e-9 * abs(truth)


# The smooth recurrence: estimator -> options and window.
WHOLE = smooth.HORIZON
SMOOTH = {
    "nres": ({}, 4),
    "nres in one window": ({}, WHOLE),
    "pes": ({}, 4),
    "gpes": ({}, 4),
    "gpes reuse 6": ({"reuse_steps": 6}, 3),
    "es_single": ({}, 4),
    "full_es": ({}, 1),
    "truncated_es": ({}, WHOLE),  # exact where nothing is truncated
    "truncated_backprop": ({}, WHOLE),
    "full_backprop": ({}, 1),
    "full_backprop in chunks of 1": ({"checkpoint_steps": 1}, 1),
    "full_backprop in chunks of 5": ({"checkpoint_steps": 5}, 1),
    "full_backprop in one chunk": ({"checkpoint_steps": 99}, 1),
    "forward_mode": ({}, 4),
    "forward_mode along 1": ({"tangents": 1}, 4),
    "forward_mode along 3": ({"tangents": 3}, 4),
    "uoro": ({}, 4),
}


def smooth_members(name: str, window: int, pairs: int = 1500, **options: object) -> torch.Tensor:
    given = {"sigma": 1e-3, **options} if name in EVOLUTION else options  # so that smoothing is far below the standard error
    recipe = ESTIMATORS[name](window=window, **given)
    count = 1 if name.startswith("full") else WHOLE // window
    return member_estimates(recipe, smooth.Smooth(), Endless(WHOLE), smooth.Smooth().init_theta(), pairs, count)


def test_every_estimator_is_in_the_table() -> None:
    assert {case.split()[0] for case in SMOOTH} == set(ESTIMATORS)


@pytest.mark.parametrize("case", SMOOTH)
def test_the_smooth_recurrence(case: str) -> None:
    (options, window), name, truth = SMOOTH[case], case.split()[0], smooth.exact()
    if "backprop" in name or case == "forward_mode":  # nothing is drawn
        members = smooth_members(name, window, 1, **options)
        torch.testing.assert_close(members, truth.expand_as(members), rtol=1e-12, atol=1e-14)
        return
    members = smooth_members(name, window, **options)
    error = standard_error(members)
    assert float(error.norm()) < 0.12 * float(truth.norm())
    assert ((members.mean(0) - truth).abs() < 4 * error).all()


def test_truncation_is_biased_where_it_truncates() -> None:
    truth, cut = smooth.exact(), smooth.exact(window=3)
    assert float((cut - truth).norm()) > 0.1 * float(truth.norm())
    backward = smooth_members("truncated_backprop", 3, 1)
    torch.testing.assert_close(backward, cut.expand_as(backward), rtol=1e-12, atol=1e-14)
    members = smooth_members("truncated_es", 3, 3000)
    error = standard_error(members)
    assert ((members.mean(0) - cut).abs() < 4 * error).all()
    assert ((members.mean(0) - truth).abs() > 5 * error).any()


@pytest.mark.parametrize("name", ["full_es", "full_backprop", "truncated_backprop"])
def test_the_last_loss_as_objective(name: str) -> None:
    members, truth = smooth_members(name, WHOLE, 1500 if name == "full_es" else 1, objective="last"), smooth.exact("last")
    error = standard_error(members) if name == "full_es" else 1e-14
    assert float((smooth.exact() - truth).norm()) > 0.1 * float(truth.norm())  # another objective indeed
    assert ((members.mean(0) - truth).abs() < 4 * error).all()


def all_signs(count: int) -> torch.Tensor:
    """All patterns of `count` signs [2**count, count]."""
    return 1.0 - 2.0 * torch.tensor(list(itertools.product((0.0, 1.0), repeat=count)), dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "window", "options", "draws"),
    [
        # Horizon 5. PES draws once a window; the others at the steps 0, K, 2K ... of an episode.
        ("pes", 1, {}, lambda step: (step, 5)),
        ("pes", 2, {}, lambda step: (step, 5)),
        ("pes", 3, {}, lambda step: (step, 5)),
        ("pes", 5, {}, lambda step: (step, 5)),
        ("gpes", 1, {"reuse_steps": 1}, lambda episode, draw: (draw, 5)),
        ("gpes", 1, {"reuse_steps": 2}, lambda episode, draw: (draw, 3)),
        ("gpes", 2, {"reuse_steps": 2}, lambda episode, draw: (3 * episode + draw, 6)),
        ("gpes", 3, {"reuse_steps": 3}, lambda episode, draw: (2 * episode + draw, 6)),
        ("nres", 1, {}, lambda episode, draw: (episode, 1)),
        ("nres", 2, {}, lambda episode, draw: (episode, 2)),
        ("nres", 3, {}, lambda episode, draw: (episode, 3)),
        ("nres", 4, {}, lambda episode, draw: (episode, 4)),
        ("es_single", 3, {}, lambda episode, draw: (episode, 3)),
    ],
)
def test_a_linear_system_by_enumeration_of_all_noise(name: str, window: int, options, draws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are quadratic in the noise, so that signs of all patterns, one pair each, give the expectation exactly.

    The estimates of 5 windows (or of one episode, if windows do not cut any) count each step equally. Charging the last loss of an episode
    to the next one's noise, a known slip, gives 3.5 in place of 5.5 at W = 1.
    """
    sigma, horizon = 0.3, 5
    count = draws(*([0] if name == "pes" else [0, 0]))[1]
    signs = all_signs(count)

    def by_step(self, pairs, outer_step, like):
        return sigma * signs[:, [draws(outer_step)[0]]]

    def by_episode(self, pairs, episodes, places, like):
        columns = [draws(episode, place)[0] for episode, place in zip(episodes, places, strict=True)]
        return sigma * signs[list(pairs), columns][:, None]

    monkeypatch.setattr(evolution.Evolution, "_noise", by_step)
    monkeypatch.setattr(noise_reuse.EpisodeNoise, "draw", by_episode)
    recipe = ESTIMATORS[name](window=window, sigma=sigma, **options)
    windows = 5 if window in (1, 2, 3, 4) else 1
    members = member_estimates(recipe, Balancing(), Endless(horizon), Balancing().init_theta(), len(signs), windows)
    assert float(members.mean()) == pytest.approx(exact_derivative(horizon), rel=1e-11)


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("name", EVOLUTION)
def test_a_quadratic_is_exact_for_any_sigma(name: str, sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # Rows of +-sigma in both coordinates have the second moment sigma^2 I: enumeration in place of expectation.
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    monkeypatch.setattr(evolution.Evolution, "_noise", lambda self, count, step, like: sigma * signs)
    monkeypatch.setattr(noise_reuse.EpisodeNoise, "draw", lambda self, pairs, episodes, draws, like: sigma * signs[list(pairs)])
    estimator = ESTIMATORS[name](window=3, sigma=sigma).build(Parabola(), Endless(horizon=3), 4, 0)
    got = estimator.estimate(Parabola().init_theta(0), 0)
    torch.testing.assert_close(flatten(got.grad), torch.tensor([-2.0, -16.0], dtype=torch.float64), rtol=1e-9, atol=0.0)
    # E loss = loss(theta) + sigma^2 trace(C) / 2, and every antithetic mean is symmetric
    assert got.loss == pytest.approx(0.5 * 4.0 + 2.0 * 16.0 + 0.5 * sigma**2 * 5.0, rel=1e-9)


@pytest.mark.parametrize("name", ["truncated_backprop", "full_backprop", "forward_mode", "uoro"])
def test_learners_that_run_one_by_one_are_left_to_evolution_strategies(name: str) -> None:
    class Looped(Parabola):
        vectorised = False

    with pytest.raises(ConfigError, match=f"estimator {name} differentiates inner training, which Looped does not allow; use nres"):
        ESTIMATORS[name](window=3).build(Looped(), Endless(3), 2, 0)
    got = ESTIMATORS["nres"](window=3).build(Looped(), Endless(3), 2, 0).estimate(Parabola().init_theta(0), 0)
    assert torch.isfinite(flatten(got.grad)).all()
