"""The inputs are blind to the scale of the loss, to rounding and to the number of decisions, up to whole runs under a policy."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from metaopt.learners.policies import (
    INPUTS,
    KNOBS,
    STATISTICS,
    TABLES,
    add_step,
    head_mask,
    mean_statistics,
    observation_start,
    observe,
    start_mean,
    start_values,
    turned,
)
from tests.learners.policies.decisions import CDFS, cdf_columns, episode, measured, play


def scaled(decision, factor):
    return decision._replace(**{name: getattr(decision, name) * factor for name in ("train_loss", "eval_loss", "register_loss")})


@pytest.mark.parametrize("seed", range(2))
def test_a_power_of_two_on_all_losses_changes_no_bit(seed):
    decisions = episode(10, seed, bad=0.2 * seed)
    expected = play(decisions)
    for shift in range(-20, 21):
        assert torch.equal(play([scaled(decision, 2.0**shift) for decision in decisions]), expected), shift


@pytest.mark.parametrize("factor", [0.1, 10.0, 1e6])
def test_any_other_scale_changes_rounding_only(factor):
    decisions = episode(20, 1)
    assert_close(play([scaled(decision, factor) for decision in decisions]), play(decisions), rtol=0, atol=1e-5)


def test_a_history_that_only_rounding_moves_is_constant():
    """Losses, norms and moves that shrink by one factor: all ratios are constant but for float32."""
    decisions = [
        measured(
            statistics=torch.full((13,), 7.0) * (1 + 1e-7 * (-1) ** k),
            train_loss=torch.tensor(3.3 * 0.9**k),
            eval_loss=torch.tensor(3.7 * 0.9**k),
            update_norm=torch.tensor(0.9**k / 7),
            param_norm=torch.tensor(0.9**k / 3),
        )
        for k in range(50)
    ]
    rows = play(decisions)
    for of in (*STATISTICS, "loss_ratio", "outer_update_ratio", "outer_norm_ratio"):
        assert (cdf_columns(rows, of) - 0.5).abs().max() < 0.1, of
    assert (cdf_columns(rows, "log_train_loss")[5:] < 0.2).all()


def smooth(decisions):
    result = []
    for k in range(1, decisions + 1):
        p = torch.tensor(k / decisions, dtype=torch.float64)
        before = p - 1 / decisions
        far, was = (10 * t / (1 + t) for t in (p, before))
        losses = (-4 * p).exp() + 0.1, (-3.5 * p).exp() + 0.15
        statistics = torch.sin(1.5 * p + torch.arange(13))
        result.append(
            measured(
                statistics=statistics,
                train_loss=losses[0],
                eval_loss=losses[1],
                update_norm=far - was,
                param_norm=(25 + far**2).sqrt(),
                progress=p,
            )
        )
    return play(result)


def test_the_number_of_decisions_hardly_matters():
    """At equal progress. The sums that replace integrals are off by O(1 / decisions)."""
    rows = {decisions: smooth(decisions)[:, CDFS] for decisions in (32, 64, 128, 256)}

    def difference(few, many):
        every = many // few
        return float((rows[few] - rows[many][every - 1 :: every])[few // 2 :].abs().max())

    assert difference(64, 128) < 0.02
    assert difference(64, 256) < 0.02
    assert 1.5 < difference(32, 64) / difference(64, 128) < 3
    assert (rows[64][-1] - 0.5).abs().mean() > 0.3  # they tell something


def closed_loop(scale, decisions=12, steps=5):
    """AdamW on a small network whose loss and epsilon are scaled, its knobs turned by a fixed random policy; rows, weights and knobs."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    params = [normal(6, 16) / 3, torch.zeros(16), normal(16, 1) / 4]
    inputs, held_out, policy = normal(40, 6), normal(20, 6), normal(sum(TABLES["wide"].nvec), INPUTS)
    moments, squares = ([torch.zeros_like(x) for x in params] for _ in range(2))
    mask = head_mask(KNOBS[:5], registers=False)
    start = values = start_values(lr=1e-2)
    state, action, last, rows = observation_start(), torch.full((9,), -1), [x.clone() for x in params], []

    def loss_of(weights, x):
        out = torch.nn.functional.gelu(x @ weights[0] + weights[1]) @ weights[2]
        return scale * (out[:, 0] - x[:, 0].sin() * x[:, 1]).square().mean()

    def norm(tensors):
        return torch.cat([x.flatten() for x in tensors]).norm()

    for k in range(decisions):
        mean, total = start_mean(), torch.zeros(())
        lr, decay, eps, rest2, rest1 = values[:5].float().unbind()
        for t in range(k * steps, (k + 1) * steps):
            weights = [x.detach().requires_grad_() for x in params]
            loss = loss_of(weights, inputs[torch.arange(t, t + 16) % 40])
            grads = torch.autograd.grad(loss, weights)
            moments = [m + rest1 * (g - m) for m, g in zip(moments, grads, strict=True)]
            squares = [v + rest2 * (g * g - v) for v, g in zip(squares, grads, strict=True)]
            roots = [v.sqrt() for v in squares]
            updates = [m / (r + eps * scale) + decay * x for m, r, x in zip(moments, roots, params, strict=True)]
            mean = add_step(mean, mean_statistics(grads, moments, roots, eps * scale, updates, params, lr))
            params, total = [x - lr * u for x, u in zip(params, updates, strict=True)], total + loss.detach()
        decision = measured(
            statistics=mean.mean,
            train_loss=total / steps,
            eval_loss=loss_of(params, held_out),
            update_norm=norm([x - y for x, y in zip(params, last, strict=True)]),
            param_norm=norm(params),
            progress=(k + 1) / decisions,
            values=values,
            start=start,
            action=action,
            head_mask=mask,
        )
        state, row = observe(state, decision)
        action = torch.stack([scores.argmax() for scores in (policy @ row).split(TABLES["wide"].nvec)])
        values, last = turned(TABLES["wide"], values, action, mask[1:]), params
        rows.append(row)
    return torch.stack(rows), torch.cat([x.flatten() for x in params]), values


def test_a_whole_run_under_a_policy_is_the_same_at_any_power_of_two():
    expected = closed_loop(1.0)
    assert not torch.equal(expected[2], start_values(lr=1e-2))  # the policy did something
    for shift in (-20, -7, -1, 5, 20):
        for found, same in zip(closed_loop(2.0**shift), expected, strict=True):
            assert torch.equal(found, same), shift


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_whole_run_is_nearly_the_same_at_other_scales(factor):
    (rows, weights, values), expected = closed_loop(factor), closed_loop(1.0)
    assert_close(rows, expected[0], rtol=0, atol=5e-4)
    assert_close(weights, expected[1], rtol=0, atol=5e-3)  # rates of 0.1 let rounding grow
    assert torch.equal(values, expected[2])  # the same choices


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.floats(2**-10, 2**10, width=32), st.floats(2**-10, 2**10, width=32)), min_size=1, max_size=8),
    st.integers(-20, 20),
)
def test_scale_is_invisible_for_any_losses(losses, shift):
    decisions = [measured(train_loss=train, eval_loss=evaluation) for train, evaluation in losses]
    assert torch.equal(play(decisions), play([scaled(decision, 2.0**shift) for decision in decisions]))
