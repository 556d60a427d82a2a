"""The running mean of theta against its closed forms."""

import pytest
import torch

from metaopt.outer.average import ThetaAverage
from metaopt.outer.blobs import from_blob, to_blob

THETAS = [{"w": torch.tensor([float(i), -2.0 * i]), "b": torch.tensor(3.0 + i**2)} for i in range(1, 7)]


def shown(decay: float, count: int = 6) -> ThetaAverage:
    average = ThetaAverage(decay)
    for theta in THETAS[:count]:
        average.add(theta)
    return average


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999, 1.0])
def test_it_is_the_weighted_mean(decay: float) -> None:
    weights = torch.tensor([decay ** (5 - i) for i in range(6)], dtype=torch.float64)
    for name in ("w", "b"):
        values = torch.stack([theta[name] for theta in THETAS]).double()
        expected = torch.tensordot(weights / weights.sum(), values, 1)
        torch.testing.assert_close(shown(decay).value({})[name].double(), expected, rtol=1e-5, atol=1e-6)


def test_it_is_adams_bias_corrected_average() -> None:
    decay, plain = 0.9, torch.zeros(())
    for theta in THETAS:
        plain = decay * plain + (1 - decay) * theta["b"]
    torch.testing.assert_close(shown(decay).value({})["b"], plain / (1 - decay**6))


def test_before_the_first_theta_it_is_what_the_caller_says_and_then_that_theta_bit_for_bit() -> None:
    assert ThetaAverage(0.9).value(THETAS[3]) is not THETAS[3]
    assert torch.equal(ThetaAverage(0.9).value(THETAS[3])["w"], THETAS[3]["w"])
    odd = {"w": torch.tensor([1e-30, 3.3333333])}
    average = ThetaAverage(0.99)
    average.add(odd)
    assert torch.equal(average.value({})["w"], odd["w"])


def test_nobody_elses_writes_show() -> None:
    theta = {"w": torch.ones(2)}
    average = ThetaAverage(0.9)
    average.add(theta)
    theta["w"].zero_()
    average.value({})["w"].zero_()
    assert torch.equal(average.value({})["w"], torch.ones(2))


def test_state_continues_bit_for_bit() -> None:
    half = shown(0.9, 3)
    again = ThetaAverage(0.9)
    again.load(from_blob(to_blob(half.state())))
    for theta in THETAS[3:]:
        again.add(theta)
    assert all(torch.equal(again.value({})[name], shown(0.9).value({})[name]) for name in ("w", "b"))
    assert again.count == 6


def test_a_fixed_point_stays() -> None:
    average = ThetaAverage(0.97)
    for _ in range(50):
        average.add(THETAS[2])
    assert torch.equal(average.value({})["b"], THETAS[2]["b"])
