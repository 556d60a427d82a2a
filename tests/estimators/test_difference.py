"""Loss differences: raw, by sign, and over a running scale, by hand and inside estimators."""

import pytest
import torch

from metaopt.errors import ConfigError
from metaopt.estimators import NRES, PES, FullES, flatten
from metaopt.estimators.difference import Differences
from tests.estimators.test_evolution import Parabola
from tests.oracles.influence_balancing import Endless, member_estimates

ONE = torch.ones(4, dtype=torch.float64)
VALUES = torch.tensor([-1.0, 2.0, 0.0, 40.0], dtype=torch.float64)


def test_raw_is_untouched() -> None:
    (got,), clipped = Differences("raw").treat([(VALUES, ONE)])
    assert got is VALUES
    assert clipped == 0.0
    assert Differences("raw").state() == {}


def test_signs_weigh_by_their_share_of_the_window() -> None:
    quarter = 0.25 * ONE
    (one, two), clipped = Differences("sign").treat([(VALUES, quarter), (-VALUES, 3 * quarter)])
    assert one.tolist() == [-0.25, 0.25, 0.0, 0.25]
    assert two.tolist() == [0.75, -0.75, 0.0, -0.75]
    assert clipped == 0.0


def test_normalised_divides_by_the_running_median_and_clips() -> None:
    differences = Differences("normalised", clip=3.0)
    (got,), clipped = differences.treat([(VALUES, ONE)])  # sizes 0 1 2 40: the lower median is 1
    assert got.tolist() == [-1.0, 2.0, 0.0, 3.0]
    assert clipped == 0.25
    (got,), clipped = differences.treat([(10 * VALUES, ONE)])  # running scale (0.9 * 1 + 10) / 1.9
    scale = 10.9 / 1.9
    assert got.tolist() == pytest.approx([-10 / scale, 3.0, 0.0, 3.0])
    assert clipped == 0.5


def test_segments_are_measured_by_their_mean_difference() -> None:
    weight = torch.tensor([0.5, 0.5, 1.0, 0.0], dtype=torch.float64)
    (one, two), _ = Differences("normalised", clip=1.5).treat([(VALUES * weight, weight), (VALUES * (1 - weight), 1 - weight)])
    # Mean differences -1, 2, 0 and -1, 2, 40: the lower median of their sizes is 1.
    assert one.tolist() == [-0.5, 0.75, 0.0, 0.0]
    assert two.tolist() == [-0.5, 0.75, 0.0, 1.5]


def test_no_difference_at_all_gives_no_gradient() -> None:
    (got,), clipped = Differences("normalised").treat([(0 * VALUES, ONE)])
    assert got.tolist() == [0.0] * 4
    assert clipped == 0.0


def test_the_running_scale_is_state() -> None:
    one, other = Differences("normalised"), Differences("normalised")
    one.treat([(VALUES, ONE)])
    other.load(one.state())
    assert torch.equal(one.treat([(3 * VALUES, ONE)])[0][0], other.treat([(3 * VALUES, ONE)])[0][0])
    fresh = Differences("normalised")
    fresh.load({})  # a state of an estimator that had none
    assert fresh.state()["difference_scale"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("recipe", [NRES, PES, FullES])
def test_estimators_multiply_noise_by_what_became_of_the_difference(recipe) -> None:
    theta = Parabola().init_theta(0)

    def members(**options: object) -> torch.Tensor:
        return member_estimates(recipe(window=3, sigma=0.1, **options), Parabola(), Endless(3), theta, 40, 1)

    raw, sign, scaled = members(), members(difference="sign"), members(difference="normalised", difference_clip=0.5)
    direction = raw / raw.norm(dim=1, keepdim=True)
    torch.testing.assert_close(sign / sign.norm(dim=1, keepdim=True), direction)  # the same noise, another length
    torch.testing.assert_close(scaled / scaled.norm(dim=1, keepdim=True), direction)
    estimator = recipe(window=3, sigma=0.1, difference="normalised", difference_clip=0.5).build(Parabola(), Endless(3), 40, 0)
    got = estimator.estimate(theta, 0)
    assert 0.5 < got.clipped_frac < 1.0  # more than half of the pairs lie above half of the median
    # Differences cannot decide the size: 100 times the loss is the same gradient, which raw differences do not give.
    torch.testing.assert_close(flatten(got.grad), scaled.mean(0), rtol=1e-9, atol=1e-12)
    assert float(sign.norm(dim=1).max() / sign.norm(dim=1).min()) < 30 < float(raw.norm(dim=1).max() / raw.norm(dim=1).min())


def test_a_multiple_of_the_loss_is_the_same_gradient() -> None:
    class Steep(Parabola):
        def advance(self, theta, task, carry, batch):
            carry, record = super().advance(theta, task, carry, batch)
            return carry, record._replace(loss=100.0 * record.loss)

    theta = Parabola().init_theta(0)
    for difference in ("sign", "normalised"):
        flat, steep = (
            NRES(window=3, difference=difference).build(learner, Endless(3), 10, 0).estimate(theta, 0) for learner in (Parabola(), Steep())
        )
        torch.testing.assert_close(flatten(flat.grad), flatten(steep.grad), rtol=1e-6, atol=1e-9)


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="difference must be one of raw, sign, normalised, got 'rank'"):
        Differences("rank")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"difference_clip must be > 0, got 0\.0"):
        Differences("normalised", 0.0)
