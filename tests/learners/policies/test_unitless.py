"""Training statistics: their meaning on vectors worked by hand, no bit of the loss's scale in them, and one formula in all forms."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from metaopt.learners.policies import STATISTICS, add_step, mean_statistics, start_mean, tensor_statistics
from metaopt.learners.policies.unitless import NOISE_LIMIT, PROBABILITY_FLOOR, RATIO_LIMIT, UPDATE_FLOOR

SHAPES = [(7,), (5, 3), (1,), (2, 3, 4), (64, 16)]


def draws(shape, seed=0, dtype=torch.float32):
    """Gradient, momentum, denominator, update and weights of one shape, all unlike."""
    rng = torch.Generator().manual_seed(seed)
    grad, noise, param = (torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(3))
    momentum, denominator = 0.5 * grad + 0.3 * noise, 0.8 * noise.abs() + 0.1
    return [x.to(dtype) for x in (1e-3 * grad, 1e-3 * momentum, 1e-3 * denominator, momentum / denominator, 0.1 * param)]


def statistics(grad, momentum, denominator, update, param, eps=5e-4, rate=1e-2, clip=1.0):
    return tensor_statistics(grad, momentum, denominator, eps, update, param, rate, clip)


def named(row):
    return dict(zip(STATISTICS, row.tolist(), strict=True))


def test_every_statistic_by_hand():
    def vector(*x):
        return torch.tensor(x, dtype=torch.float64)

    grad, momentum, denominator, update, param = vector(3.0, 4.0), vector(3.0, 0.0), vector(1.5, 1.0), vector(1.0, 0.1), vector(0.0, -2.0)
    norm_u, normal = math.sqrt(1.01), torch.distributions.Normal(0.0, 1.0)
    phi = [float(normal.cdf(torch.tensor(math.sqrt(2) * c, dtype=torch.float64))) for c in (0.6, -0.8, 3.4 / (5 * norm_u))]
    expected = {
        "did_grad_clip": 1.0,
        "sqrt_v_hat_gt_epsilon": 0.5,
        "mean_log_abs_adam_pre_lr_update": math.log(0.1) / 2,
        "log_two_regimes_scale": math.log(3 / 5),
        "log_adam_update_norm_over_param_norm": math.log(0.01 * norm_u / 2),
        "log_noise_scale": math.log(3 / 4),
        "cosine_similarity_grad_momentum": 0.6,
        "cosine_similarity_grad_param": -0.8,
        "log_lamb": math.log(2 / norm_u),
        "cosine_similarity_grad_update": 3.4 / (5 * norm_u),
        "logit_cdf_cosine_similarity_grad_momentum": math.log(phi[0] / (1 - phi[0])),
        "logit_cdf_cosine_similarity_grad_update": math.log(phi[2] / (1 - phi[2])),
        "cdf_cosine_similarity_grad_param": phi[1],
    }
    got = named(statistics(grad, momentum, denominator, update, param, eps=1.0, rate=0.01, clip=0.9))
    assert list(got) == list(expected)
    assert got == pytest.approx(expected, rel=1e-12)


def train(shift, steps=30):
    """Weights and statistics of AdamW with clipping and a cosine rate on a small net, loss and epsilon times 2^shift."""
    scale, beta1, beta2, eps, decay = 2.0**shift, 0.9, 0.99, 1e-2 * 2.0**shift, 0.01
    rng = torch.Generator().manual_seed(3)
    net = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))
    params = list(net.parameters())
    for p in params:
        p.data = torch.randn(p.shape, generator=rng) * 0.3
    first, second = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]
    rows, mean = [], start_mean()
    for t in range(1, steps + 1):
        x, label = torch.randn(16, 6, generator=rng), torch.randint(3, (16,), generator=rng)
        grads = torch.autograd.grad(cross_entropy(net(x), label) * scale, params)
        norm = torch.stack([g.norm() for g in grads]).norm()
        clip = torch.clamp(0.5 * scale / norm, max=1.0)  # without the usual 1e-6 beside the norm, which has a unit
        grads = [g * clip for g in grads]
        rate = 1e-2 * (1 + math.cos(math.pi * t / steps)) / 2
        first = [beta1 * m + (1 - beta1) * g for m, g in zip(first, grads, strict=True)]
        second = [beta2 * v + (1 - beta2) * g * g for v, g in zip(second, grads, strict=True)]
        momenta = [m / (1 - beta1**t) for m in first]
        roots = [(v / (1 - beta2**t)).sqrt() for v in second]
        updates = [m / (s + eps) for m, s in zip(momenta, roots, strict=True)]
        before = [p.detach().clone() for p in params]
        row = mean_statistics(grads, momenta, roots, eps, updates, before, rate, clip)
        each = [
            tensor_statistics(g, m, s, eps, u, p, rate, clip) for g, m, s, u, p in zip(grads, momenta, roots, updates, before, strict=True)
        ]
        rows.append(torch.cat([row, *each]))
        mean = add_step(mean, row)
        for p, u in zip(params, updates, strict=True):
            p.data = p.data - rate * (u + decay * p.data)
    return [p.detach() for p in params], torch.stack(rows), mean.mean


@pytest.fixture(scope="module")
def unscaled():
    return train(0)


@pytest.mark.parametrize("shift", [j for j in range(-20, 21, 5) if j])
def test_a_power_of_two_in_the_loss_changes_no_bit_of_a_run(shift, unscaled):
    weights, rows, mean = train(shift)
    assert all(torch.equal(a, b) for a, b in zip(weights, unscaled[0], strict=True))
    assert torch.equal(rows, unscaled[1])
    assert torch.equal(mean, unscaled[2])


def test_the_run_shows_every_statistic_at_work(unscaled):
    rows = unscaled[1][:, : len(STATISTICS)]
    assert rows.isfinite().all()
    assert (rows[5:].std(0) > 1e-3).all()
    assert 0 < rows[:, 0].mean() < 1  # clipped at some steps
    assert named(rows[0])["log_noise_scale"] > 5  # the first momentum is the gradient, up to rounding


@pytest.mark.parametrize("shift", [-90, 90])
def test_squares_neither_vanish_nor_overflow(shift):
    grad, momentum, denominator, update, param = draws((5, 3))
    scale = 2.0**shift
    scaled = statistics(grad * scale, momentum * scale, denominator * scale, update, param, eps=5e-4 * scale)
    assert torch.equal(scaled, statistics(grad, momentum, denominator, update, param))


def test_a_scale_that_is_no_power_of_two_changes_the_rounding_only():
    grad, momentum, denominator, update, param = draws((64, 16))
    scaled = statistics(10 * grad, 10 * momentum, 10 * denominator, update, param, eps=5e-3)
    torch.testing.assert_close(scaled, statistics(grad, momentum, denominator, update, param), rtol=0, atol=1e-4)


def test_only_log_lamb_tells_the_scale_of_weights():
    grad, momentum, denominator, update, param = draws((64, 16))
    row = statistics(grad, momentum, denominator, update, param)
    scaled = statistics(4 * grad, 4 * momentum, 4 * denominator, update, param / 4, eps=4 * 5e-4, rate=1e-2 / 4)
    shift = torch.zeros_like(row)
    shift[STATISTICS.index("log_lamb")] = -math.log(4)
    torch.testing.assert_close(scaled - row, shift, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [64, 1024, 16384])
def test_random_directions_look_alike_in_tensors_of_all_sizes(size):
    runs, rng = 200, torch.Generator().manual_seed(size)
    grad, momentum, update, param = (torch.randn(runs, size, generator=rng) for _ in range(4))
    rows = torch.func.vmap(statistics)(grad, momentum, momentum.abs(), update, param)
    # The log odds of a uniform probability are standard logistic.
    sd = math.pi / math.sqrt(3)
    for name in ("logit_cdf_cosine_similarity_grad_momentum", "logit_cdf_cosine_similarity_grad_update"):
        column = rows[:, STATISTICS.index(name)]
        assert abs(float(column.mean())) < 4 * sd / math.sqrt(runs)
        assert float(column.std()) == pytest.approx(sd, rel=0.2)
    uniform = rows[:, STATISTICS.index("cdf_cosine_similarity_grad_param")]
    assert abs(float(uniform.mean()) - 0.5) < 4 / math.sqrt(12 * runs)
    assert float(uniform.std()) == pytest.approx(1 / math.sqrt(12), rel=0.2)


def lists(dtype=torch.float32):
    return [list(column) for column in zip(*(draws(shape, seed, dtype) for seed, shape in enumerate(SHAPES)), strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_mean_over_tensors_is_the_mean_of_single_tensors(dtype):
    grads, momenta, denominators, updates, params = lists(dtype)
    updates[1], params[2], grads[3] = torch.zeros_like(updates[1]), torch.zeros_like(params[2]), torch.zeros_like(grads[3])
    n = len(SHAPES)
    eps, rates, clips = 1e-4 * torch.arange(1, n + 1), 1e-2 / torch.arange(1, n + 1), torch.tensor([1.0, 0.5] * n)[:n]
    rows = [tensor_statistics(*row) for row in zip(grads, momenta, denominators, eps, updates, params, rates, clips, strict=True)]
    fused = mean_statistics(grads, momenta, denominators, eps, updates, params, rates, clips)
    assert fused.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(fused, torch.stack(rows).mean(0), rtol=1e-6, atol=2e-6)
    one = mean_statistics(grads, momenta, denominators, 1e-4, updates, params, 1e-2)
    eps_n, rate_n, clip_n = (torch.full((n,), x, dtype=fused.dtype) for x in (1e-4, 1e-2, 1.0))
    same = mean_statistics(grads, momenta, denominators, eps_n, updates, params, rate_n, clip_n)
    assert torch.equal(one, same)


def test_nothing_is_read_back_or_changed_on_the_way():
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
            return func(*args, **(kwargs or {}))

    columns = lists()
    kept = [[x.clone() for x in column] for column in columns]
    grads, momenta, denominators, updates, params = columns
    with Watch():
        row = mean_statistics(grads, momenta, denominators, 1e-4, updates, params, torch.tensor(1e-2), 1.0)
        state = add_step(start_mean(), row)
    torch.testing.assert_close(state.mean, row)
    assert all(torch.equal(a, b) for new, old in zip(columns, kept, strict=True) for a, b in zip(new, old, strict=True))


def test_vmap_equals_a_loop():
    runs = [draws((5, 3), seed) for seed in range(4)]
    runs[1][3], runs[2][0] = torch.zeros(5, 3), torch.zeros(5, 3)
    eps, rates, clips = torch.tensor([1e-5, 1e-4, 5e-4, 1e-3]), torch.tensor([0.0, 1e-3, 1e-2, 1.0]), torch.tensor([1.0, 0.5, 1.0, 0.1])
    batched = torch.func.vmap(statistics)(*(torch.stack(column) for column in zip(*runs, strict=True)), eps, rates, clips)
    looped = [statistics(*run, *rest) for run, *rest in zip(runs, eps, rates, clips, strict=True)]
    torch.testing.assert_close(batched, torch.stack(looped), rtol=1e-6, atol=1e-6)


TOP, NOISE = math.log(RATIO_LIMIT), math.log(NOISE_LIMIT)
NO_COSINE = {
    "cosine_similarity_grad_momentum": 0.0,
    "cosine_similarity_grad_param": 0.0,
    "cosine_similarity_grad_update": 0.0,
    "logit_cdf_cosine_similarity_grad_momentum": 0.0,
    "logit_cdf_cosine_similarity_grad_update": 0.0,
    "cdf_cosine_similarity_grad_param": 0.5,
}
STILL = {"mean_log_abs_adam_pre_lr_update": math.log(UPDATE_FLOOR)}
DEGENERATE = {
    "gradient": ((0,), NO_COSINE | {"log_two_regimes_scale": TOP, "log_noise_scale": 0.0}),
    "momentum": ((1,), {"log_two_regimes_scale": -TOP, "log_noise_scale": -TOP, "cosine_similarity_grad_momentum": 0.0}),
    "update": ((3,), STILL | {"log_adam_update_norm_over_param_norm": -TOP, "log_lamb": TOP}),
    "param": ((4,), {"log_adam_update_norm_over_param_norm": TOP, "log_lamb": -TOP, "cdf_cosine_similarity_grad_param": 0.5}),
    "all": (
        (0, 1, 2, 3, 4),
        NO_COSINE
        | STILL
        | dict.fromkeys(("log_two_regimes_scale", "log_adam_update_norm_over_param_norm", "log_noise_scale", "log_lamb"), 0.0)
        | {"sqrt_v_hat_gt_epsilon": 0.0},
    ),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("shift", [-20, 0, 20])
def test_zeros_give_the_numbers_that_are_promised_at_any_scale(name, shift):
    zeros, expected = DEGENERATE[name]
    grad, momentum, denominator, update, param = (torch.zeros(5, 3) if i in zeros else x for i, x in enumerate(draws((5, 3))))
    scale = 2.0**shift
    row = statistics(grad * scale, momentum * scale, denominator * scale, update, param, eps=5e-4 * scale)
    assert row.isfinite().all()
    got = named(row)
    if name == "momentum":
        expected = expected | {"log_noise_scale": -NOISE}
    assert {key: got[key] for key in expected} == pytest.approx(expected, rel=1e-6)
    assert torch.equal(row, statistics(grad, momentum, denominator, update, param))


def test_a_first_step_has_the_largest_signal_whatever_its_rounding():
    grad, _, denominator, update, param = draws((64, 16))
    momentum = (0.1 * grad) / (1 - 0.9)
    for m in (grad, momentum):
        assert named(statistics(grad, m, denominator, update, param))["log_noise_scale"] == pytest.approx(NOISE)


def test_log_odds_end_where_the_clipped_probability_does():
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    row, limit = named(statistics(x, x, x.abs(), -x, x)), math.log((1 - PROBABILITY_FLOOR) / PROBABILITY_FLOOR)
    assert row["logit_cdf_cosine_similarity_grad_momentum"] == pytest.approx(limit)
    assert row["logit_cdf_cosine_similarity_grad_update"] == pytest.approx(-limit)


@pytest.mark.parametrize("rate", [0.0, torch.tensor(0.0)])
def test_a_rate_of_zero_is_the_smallest_relative_change(rate):
    assert named(statistics(*draws((7,)), rate=rate))["log_adam_update_norm_over_param_norm"] == pytest.approx(-TOP)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_gradient_is_not_hidden(bad):
    grad, momentum, denominator, update, param = draws((7,))
    grad[2] = bad
    row = statistics(grad, momentum + grad, denominator, update, param)
    tells = [i for i, name in enumerate(STATISTICS) if "grad" in name.split("_") and name != "did_grad_clip"]
    assert not row[tells].isfinite().any()
    state = add_step(add_step(start_mean(), row), statistics(*draws((7,))))
    assert not state.mean[tells].isfinite().any()


def test_measured_steps_count_alike():
    rows = [statistics(*draws((7,), seed)) for seed in range(5)]
    state = start_mean()
    for row in rows:
        state = add_step(state, row)
    assert int(state.steps) == 5
    torch.testing.assert_close(state.mean, torch.stack(rows).mean(0), rtol=1e-6, atol=1e-6)
