"""Advantages against the sum that defines them, written with Python's floats."""

import math
from dataclasses import replace

import pytest
import torch

from metaopt.outer.ppo.advantages import advantages, normalised
from tests.outer.ppo.sequences import networks, played, spoiled

NETWORK, CRITIC = networks()
LENGTHS = [6, 1, 9, 4]


def by_definition(reward: list[float], value: list[float], bootstrap: float, gamma: float, lam: float) -> list[float]:
    """A_t = sum over k of (gamma lam)^k delta_{t+k}, each sum on its own."""
    following = [*value[1:], bootstrap]
    delta = [r + gamma * after - now for r, after, now in zip(reward, following, value, strict=True)]
    return [math.fsum((gamma * lam) ** k * d for k, d in enumerate(delta[t:])) for t in range(len(delta))]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.7, 0.0)])
def test_advantages_equal_a_float64_reference(gamma: float, lam: float) -> None:
    episodes = played(LENGTHS, NETWORK, CRITIC, padding=2)
    advantage, target = advantages(episodes, gamma, lam)
    for e, length in enumerate(LENGTHS):
        reward, value = episodes.reward[:length, e].double().tolist(), episodes.value[:length, e].double().tolist()
        wanted = by_definition(reward, value, float(episodes.bootstrap[e]), gamma, lam)
        assert advantage[:length, e].tolist() == pytest.approx(wanted, abs=1e-6)
        assert target[:length, e].tolist() == pytest.approx([a + v for a, v in zip(wanted, value, strict=True)], abs=1e-6)
    assert torch.equal(advantage[~episodes.valid], torch.zeros_like(advantage[~episodes.valid]))
    assert torch.equal(target[~episodes.valid], torch.zeros_like(target[~episodes.valid]))


def test_with_lambda_1_the_target_is_the_discounted_return() -> None:
    episodes = played([5, 3], NETWORK, CRITIC)
    _, target = advantages(episodes, 0.9, 1.0)
    for e, length in enumerate([5, 3]):
        discounted = math.fsum(0.9**k * float(r) for k, r in enumerate(episodes.reward[:length, e]))
        wanted = discounted + 0.9**length * float(episodes.bootstrap[e])
        assert float(target[0, e]) == pytest.approx(wanted, abs=1e-5)


def test_more_padding_changes_no_bit() -> None:
    episodes = played(LENGTHS, NETWORK, CRITIC)
    for a, b in zip(advantages(episodes, 1.0, 0.95), advantages(spoiled(episodes, 7), 1.0, 0.95), strict=True):
        assert torch.equal(a, b[: len(a)])


def test_a_lost_step_is_neutral() -> None:
    """A step that was lost has reward 0 and is bootstrapped with the value of where it began: its advantage is 0 at gamma 1."""
    episodes = played([4], NETWORK, CRITIC)
    reward = episodes.reward.clone()
    reward[3] = 0.0
    lost = replace(episodes, reward=reward, bootstrap=episodes.value[3])
    advantage, _ = advantages(lost, 1.0, 0.95)
    assert float(advantage[3, 0]) == pytest.approx(0.0, abs=1e-7)


def test_normalised_advantages() -> None:
    got = normalised(torch.tensor([1.0, 2.0, 6.0, -3.0]))
    assert float(got.mean()) == pytest.approx(0.0, abs=1e-7)
    assert float(got.square().mean()) == pytest.approx(1.0, rel=1e-6)
    assert torch.equal(normalised(torch.full((5,), 3.0)), torch.zeros(5))
    assert torch.equal(normalised(torch.tensor([2.5])), torch.zeros(1))
