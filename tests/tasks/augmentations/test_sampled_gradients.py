"""ES gradients and random directions: unbiased, with the distribution that their definition has."""

import math

import pytest
import torch
from torch.func import vmap

from metaopt import inner, learners, seeds
from metaopt.tasks.augmentations import EvolutionGradients, RandomDirections
from metaopt.tasks.task import Task
from tests.tasks.augmentations.bench import bowl, digits, plain_bowl, strength

KEY = seeds.key("run")


def gradients(task: Task, params, draws: int, first: int = 0) -> torch.Tensor:
    """Return the flat gradients [draws, P] of as many steps at the same weights, on the batch of step 0 but for the key."""
    base = task.batch(KEY, torch.tensor(0))

    def one(step: torch.Tensor) -> torch.Tensor:
        keys = {name: value for name, value in task.batch(KEY, step).items() if name.endswith(".key")}
        grads, _, _ = task.gradients(params, {**base, **keys}, {})
        return torch.cat([g.reshape(-1) for g in grads.values()])

    return vmap(one)(torch.arange(first, first + draws))


def exact(task: Task, params) -> torch.Tensor:
    batch = task.batch(KEY, torch.tensor(0))
    return torch.cat([g.reshape(-1) for g in torch.func.grad(task.loss)(params, batch).values()])


def assert_mean(rows: torch.Tensor, expected: torch.Tensor) -> None:
    se = rows.std(0) / math.sqrt(len(rows))
    assert float(((rows.mean(0) - expected).abs() / se).max()) < 4


@pytest.mark.parametrize("pairs", [1, 4])
def test_es_gradients_of_a_quadratic_are_unbiased(pairs: int) -> None:
    plain = bowl("none")
    task = strength(plain, EvolutionGradients(pairs=(pairs, pairs)), 0.1)
    params = plain.init(KEY)
    g = exact(plain, params)
    rows = gradients(task, params, 20_000)
    assert_mean(rows, g)
    # one pair: (e . g) e, whose covariance is |g|^2 I + g g'
    expected = (g.square().sum() + g.square()) / pairs
    torch.testing.assert_close(rows.var(0), expected, rtol=0.1, atol=0)


def test_es_gradients_record_the_loss_of_the_weights_themselves() -> None:
    plain = digits()
    task = strength(plain, EvolutionGradients(pairs=(2, 2)), 0.1)
    params, batch = plain.init(KEY), task.batch(KEY, torch.tensor(1))
    grads, loss, state = task.gradients(params, batch, {})
    torch.testing.assert_close(loss, plain.loss(params, batch), rtol=0, atol=0)
    assert state == {}
    assert {name: g.shape for name, g in grads.items()} == {name: p.shape for name, p in params.items()}


def test_small_perturbations_see_the_gradient_along_their_directions() -> None:
    plain = digits()
    params = plain.init(KEY)
    g = exact(plain, params)
    row = gradients(strength(plain, EvolutionGradients(pairs=(1, 1)), 1e-4), params, 1)[0]
    slope = row.norm() * float(torch.sign(row @ g))  # the row is slope * e with |e|^2 about P
    assert float(row @ g) > 0  # (e . g)^2
    direction = row / row.norm()
    assert float(slope) == pytest.approx(float(direction @ g) * len(g), rel=0.15)


def test_pairs_are_powers_of_two_in_the_range() -> None:
    assert {EvolutionGradients().settle(i).pairs for i in range(100)} == {(n, n) for n in (1, 2, 4, 8, 16)}
    assert EvolutionGradients(pairs=(5, 7)).settle(0).pairs == (5, 5)
    assert EvolutionGradients(pairs=(3, 3)).settle(0).pairs == (3, 3)
    assert EvolutionGradients(pairs=(3, 9)).settle(0).pairs in {(4, 4), (8, 8)}
    stds = [float(EvolutionGradients().apply(bowl(), i).numbers["evolution_gradients"]) for i in range(200)]
    assert 1e-3 <= min(stds) < 2e-3
    assert 0.05 < max(stds) <= 0.1


@pytest.mark.parametrize("count", [1, 3, 50])
def test_random_directions_have_the_distribution_of_their_definition(count: int) -> None:
    hessian = torch.diag(torch.tensor([3.0, 1.0, 0.5, 2.0], dtype=torch.float64))
    plain = plain_bowl(4, 1, hessian)
    task = strength(plain, RandomDirections(directions=(1, 64)), count)
    params = {"x": torch.tensor([[1.0], [-2.0], [0.5], [0.3]], dtype=torch.float64)}
    g = exact(plain, params)
    rows = gradients(task, params, 40_000)
    assert_mean(rows, g)
    # mean of K terms (d . g) d: covariance (|g|^2 I + g g') / K
    covariance = (g.square().sum() * torch.eye(4, dtype=torch.float64) + torch.outer(g, g)) / count
    gap = (torch.cov(rows.T) - covariance).abs().max() / covariance.abs().max()
    assert float(gap) < 0.08
    # direction by direction, with torch's generator
    d = torch.randn(40_000, count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    literal = ((d @ g).unsqueeze(-1) * d).mean(1)
    u = g / g.norm()
    for statistic in (
        lambda r: r @ u,
        lambda r: (r @ u).square(),
        lambda r: (r - (r @ u).unsqueeze(-1) * u).norm(dim=-1),
        lambda r: (r @ u) * r.norm(dim=-1),
    ):
        one, two = statistic(rows), statistic(literal)
        se = ((one.var() + two.var()) / len(one)).sqrt()
        assert float((one.mean() - two.mean()).abs() / se) < 4


def test_one_direction_leaves_a_multiple_of_one_normal_direction() -> None:
    """For K = 1 the result is (d . g) d: the d it lies along, found from it, is standard normal."""
    plain = plain_bowl(3, 1, torch.diag(torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)))
    task = strength(plain, RandomDirections(directions=(1, 64)), 1)
    params = {"x": torch.tensor([[1.0], [1.0], [1.0]], dtype=torch.float64)}
    g = exact(plain, params)
    rows = gradients(task, params, 20_000)
    shares = rows @ g
    assert bool((shares > 0).all())
    d = rows / shares.sqrt().unsqueeze(-1)  # up to its sign, which is undone by that of d . g
    square = d.square()
    assert float((square.mean(0) - 1).abs().max()) < 4 * math.sqrt(2 / 20_000)
    assert float((square.square().mean(0) - 3).abs().max()) < 4 * math.sqrt(96 / 20_000)


def test_a_zero_gradient_stays_zero_and_many_directions_show_all_of_it() -> None:
    plain = plain_bowl(4, 1, torch.eye(4, dtype=torch.float64))
    task = strength(plain, RandomDirections(), 1024)
    assert float(gradients(task, {"x": torch.zeros(4, 1, dtype=torch.float64)}, 3).abs().max()) == 0
    params = {"x": torch.ones(4, 1, dtype=torch.float64)}
    seen = gradients(task, params, 50)
    assert float((seen - 1).norm(dim=-1).mean() / 2) < 0.1  # sqrt(P / K) of |g|
    counts = [float(RandomDirections().apply(plain, i).numbers["random_directions"]) for i in range(300)]
    assert min(counts) == 1
    assert 512 < max(counts) <= 1024
    assert all(count == int(count) for count in counts)


@pytest.mark.parametrize("augmentation", [EvolutionGradients(pairs=(2, 2)), RandomDirections()], ids=lambda a: a.name)
def test_draws_follow_the_step_and_the_run_and_nothing_else(augmentation) -> None:
    plain = bowl("none")
    task = augmentation.apply(plain, 0)
    params = plain.init(KEY)
    once, twice = gradients(task, params, 2), gradients(task, params, 2)
    assert torch.equal(once, twice)
    assert not torch.equal(once[0], once[1])
    other = task.batch(seeds.key("another run"), torch.tensor(0))
    assert not torch.equal(task.gradients(params, other, {})[0]["x"].reshape(-1), once[0])
    together = inner.run(learners.get("sgd", lr=1e-3), {}, [task, task], [4, 5], 5).loss
    alone = inner.run(learners.get("sgd", lr=1e-3), {}, [task], [5], 5).loss
    torch.testing.assert_close(together[:, 1], alone[:, 0])
