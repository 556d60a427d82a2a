"""Steps of a learned rule move layers alike at every width under maximal updates, and more in wider ones under the standard rules."""

from pathlib import Path

import pytest
import torch

from metaopt import learners
from metaopt.errors import ConfigError
from metaopt.evaluation.coordinate_check import WIDTHS, CoordinateCheck, check_coordinates, draw_checks

FLAT = 0.15
FAST = (64, 128, 256, 512)


def slopes(parametrisation: str, widths: tuple[int, ...], inner_seeds=(0, 1), rule: str = "small_fc", **options) -> torch.Tensor:
    learner = learners.get(rule, **({"hidden": (32, 32), "norm_eps": 1e-12} if rule == "small_fc" else {}), **options)
    return check_coordinates(learner, learner.init_theta(0), parametrisation, widths, inner_seeds).slopes


def check_widths(widths: tuple[int, ...], inner_seeds: tuple[int, ...]) -> None:
    assert float(slopes("mu", widths, inner_seeds).abs().max()) < FLAT
    standard = slopes("standard", widths, inner_seeds)
    assert float(standard[1:].min()) > 0.3  # all but the input layer, whose fan in does not grow
    assert float(standard[0].abs()) < 0.2


def test_small_fc_is_flat_under_maximal_updates_only() -> None:
    check_widths(FAST, (0, 1))


@pytest.mark.slow
def test_small_fc_is_flat_up_to_the_widest() -> None:
    check_widths(WIDTHS, (0,))


def test_the_step_size_of_mulo_is_flat_too() -> None:
    assert float(slopes("mu", (64, 256), step_mult=0.01).abs().max()) < FLAT


def test_the_published_epsilon_swallows_the_small_gradients_of_wide_networks() -> None:
    """The reason for `norm_eps`: hidden layers of the hand-set start move about as one over the width."""
    learner = learners.get("small_fc", hidden=(32, 32))
    found = check_coordinates(learner, learner.init_theta(0), "mu", (64, 256), (0,)).slopes
    assert float(found[:3].max()) < -0.7


def test_adam_with_scaled_steps_is_flat() -> None:
    assert float(slopes("mu", (64, 256), rule="adam").abs().max()) < FLAT


def test_slopes_of_powers_are_their_exponents() -> None:
    widths = (2, 8, 32)
    powers = torch.tensor([0.0, 1.0, -0.5], dtype=torch.float64)
    lines = torch.tensor(widths, dtype=torch.float64).reshape(-1, 1, 1) ** powers
    check = CoordinateCheck("mu", widths, torch.cat([0.5 * lines, 2.0 * lines], 1))
    torch.testing.assert_close(check.slopes, powers, rtol=1e-12, atol=1e-12)


def test_change_is_that_of_the_preactivations_and_follows_the_seed() -> None:
    learner = learners.get("sgd", lr=0.0)
    still = check_coordinates(learner, {}, "mu", (8, 16), (0,))
    assert still.change.shape == (2, 1, 4)
    assert not still.change.any()
    moving = learners.get("sgd", lr=0.1)
    one, two = (check_coordinates(moving, {}, "standard", (8, 16), (0, 1), steps) for steps in (1, 3))
    assert torch.equal(one.change, check_coordinates(moving, {}, "standard", (8, 16), (0, 1), 1).change)
    assert not torch.equal(one.change[:, 0], one.change[:, 1])
    assert (two.change > one.change).all()


@pytest.mark.parametrize(("widths", "inner_seeds", "steps"), [((8, 8), (0,), 1), ((8, 16), (), 1), ((8, 16), (0,), 0)])
def test_too_little_to_compare_is_refused(widths, inner_seeds, steps) -> None:
    with pytest.raises(ConfigError, match="a coordinate check needs two widths, a seed and a step, got"):
        check_coordinates(learners.get("sgd"), {}, "mu", widths, inner_seeds, steps)


def test_a_figure_has_a_panel_for_each_check(tmp_path: Path) -> None:
    check = CoordinateCheck("mu", (8, 16), torch.ones(2, 3, 4, dtype=torch.float64))
    draw_checks({"one": check, "two": check}, "title", tmp_path / "new" / "figure.png")
    assert (tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")
