"""Choices of several heads against float64 arithmetic by hand."""

import math

import pytest
import torch

from metaopt import seeds
from metaopt.learners.policies.heads import entropy, greedy, head_entropy, log_prob, log_prob_and_entropy, sample, split_heads

NVEC = (10, 7, 3, 3, 3, 3, 5, 3, 3)
KEY = seeds.key("test heads")


def logits(*shape: int, scale: float = 2.0) -> torch.Tensor:
    return scale * seeds.normal(KEY, (*shape, sum(NVEC)))


def actions(*shape: int) -> torch.Tensor:
    return torch.stack([seeds.randint(seeds.fold_in(KEY, head), shape, n) for head, n in enumerate(NVEC)], dim=-1)


def reference(row: list[float], action: list[int] | None, mask: list[bool]) -> tuple[float, float]:
    """The log-probability and the entropy of one decision, head by head, with Python's floats."""
    total, spread, start = 0.0, 0.0, 0
    for head, n in enumerate(NVEC):
        own = row[start : start + n]
        start += n
        if not mask[head]:
            continue
        log_sum = math.log(math.fsum(math.exp(x) for x in own))
        total += own[action[head]] - log_sum if action else 0.0
        spread -= math.fsum(math.exp(x - log_sum) * (x - log_sum) for x in own)
    return total, spread


@pytest.mark.parametrize("masked", [True, False])
def test_both_at_once_are_each_alone(masked: bool) -> None:
    given, chosen = logits(4, 6), actions(4, 6)
    mask = seeds.uniform(seeds.fold_in(KEY, 99), (4, 6, 9)) < 0.7 if masked else None
    probability, spread = log_prob_and_entropy(given, chosen, NVEC, mask)
    assert torch.equal(probability, log_prob(given, chosen, NVEC, mask))
    assert torch.equal(spread, head_entropy(given, NVEC, mask))
    assert (spread == 0).any() == masked


def test_log_probabilities_and_entropies_equal_a_float64_reference() -> None:
    given, chosen = logits(4, 6), actions(4, 6)
    mask = seeds.uniform(seeds.fold_in(KEY, 99), (4, 6, 9)) < 0.7
    probability, spread = log_prob(given, chosen, NVEC, mask), entropy(given, NVEC, mask)
    for index in torch.cartesian_prod(torch.arange(4), torch.arange(6)).tolist():
        place = tuple(index)
        wanted = reference(given[place].double().tolist(), chosen[place].tolist(), mask[place].tolist())
        assert float(probability[place]) == pytest.approx(wanted[0], abs=2e-5)
        assert float(spread[place]) == pytest.approx(wanted[1], abs=2e-5)
    in_double = log_prob(given.double(), chosen, NVEC, mask)
    assert float(in_double[0, 0]) == pytest.approx(
        reference(given[0, 0].double().tolist(), chosen[0, 0].tolist(), mask[0, 0].tolist())[0], abs=1e-12
    )


def test_a_masked_head_is_not_there() -> None:
    given, chosen = logits(5).requires_grad_(), actions(5)
    mask = torch.ones(5, 9, dtype=torch.bool)
    mask[:, 1] = False
    wild = chosen.clone()
    wild[:, 1] = torch.tensor([-1, 6, 0, 100, 3])
    assert torch.equal(log_prob(given, chosen, NVEC, mask), log_prob(given, wild, NVEC, mask))
    (gradient,) = torch.autograd.grad((log_prob(given, chosen, NVEC, mask) + entropy(given, NVEC, mask)).sum(), given)
    assert torch.equal(gradient[:, 10:17], torch.zeros(5, 7))
    assert bool((gradient[:, :10] != 0).any())
    assert torch.equal(head_entropy(given, NVEC, mask)[:, 1], torch.zeros(5))
    everything = torch.zeros(5, 9, dtype=torch.bool)
    assert torch.equal(log_prob(given, chosen, NVEC, everything), torch.zeros(5))


def test_uniform_logits_have_the_largest_entropy() -> None:
    assert float(entropy(torch.zeros(sum(NVEC)), NVEC)) == pytest.approx(sum(math.log(n) for n in NVEC), rel=1e-6)
    assert split_heads(torch.zeros(3, sum(NVEC)), NVEC).shape == (3, 9, 10)
    assert torch.equal(split_heads(torch.zeros(sum(NVEC)), NVEC).exp().gt(0).sum(-1), torch.tensor(NVEC))


def test_samples_follow_the_probabilities() -> None:
    nvec, given = (3, 2), torch.tensor([0.5, 0.3, 0.2, 0.9, 0.1]).log()
    grid = (torch.arange(1000) + 0.5) / 1000
    chosen = sample(given.expand(1000, 5), torch.stack([grid, grid.flip(0)], -1), nvec)
    assert torch.equal(torch.bincount(chosen[:, 0]), torch.tensor([500, 300, 200]))
    assert torch.equal(torch.bincount(chosen[:, 1]), torch.tensor([900, 100]))
    assert torch.equal(chosen[:, 0], chosen[:, 0].sort().values)  # by inversion


def test_samples_stay_within_their_heads() -> None:
    almost_one = torch.full((9,), 1 - 2.0**-24)
    for scale in (0.0, 1.0, 100.0):
        given = logits(50, scale=scale)
        for uniform in (almost_one, torch.zeros(9)):
            chosen = sample(given, uniform.expand(50, 9), NVEC)
            assert bool((chosen >= 0).all())
            assert bool((chosen < torch.tensor(NVEC)).all())
    certain = torch.full((sum(NVEC),), -200.0)
    certain[[0, 16, 18, 22, 24, 28, 30, 36, 37]] = 200.0
    for uniform in (almost_one, torch.zeros(9)):
        assert torch.equal(sample(certain, uniform, NVEC), greedy(certain, NVEC))


def test_greedy_takes_the_first_of_equals() -> None:
    assert torch.equal(greedy(torch.tensor([0.0, 2.0, 2.0, 1.0, 1.0]), (3, 2)), torch.tensor([1, 0]))
