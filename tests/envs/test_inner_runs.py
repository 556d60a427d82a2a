"""Controlled inner runs: the recorded step is the step, and knobs held still are the optimizer that they describe."""

import pytest
import torch

from metaopt import inner, tasks
from metaopt.inner.step import training_step
from metaopt.learners import get as get_learner
from metaopt.learners.policies.controlled import INNER, ControlledLearner, flat, forget_steps
from metaopt.learners.policies.knobs import KNOBS, start_values
from metaopt.learners.policies.unitless import STATISTICS
from metaopt.tasks.halves import DECIDING, SCORING
from metaopt_envs.inner_runs import InnerRuns, choose
from metaopt_envs.recorded import recorded_step

RUNS = 3
ADAMW = {"lr": 3e-3, "weight_decay": 1e-2, "epsilon": 1e-8, "one_minus_beta2": 1e-3, "one_minus_beta1": 0.1}


def build(family="digits_mlp", horizon=16):
    chosen = tasks.get(family)
    template = chosen.templates("meta_train")[0]
    return [tasks.build(chosen.sample(template, draw, (horizon, horizon))) for draw in range(RUNS)]


def runs(inner_optimizer="adamw", family="digits_mlp"):
    return InnerRuns(build(family), [11, 12, 13], inner_optimizer)


def values(**given):
    return start_values(**(ADAMW | given)).expand(RUNS, -1).contiguous()


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("name", INNER)
def test_recorded_step_is_the_step_bit_for_bit(name, measured):
    one = runs(name)
    learner, theta = ControlledLearner(name, measured), {"values": values()}
    for _ in range(2):
        batch = one._batch()
        expected, _, _ = training_step(learner, one.stacked.program, True, False)(
            theta, one.stacked.numbers, one.stacked.shared, one.carry, batch
        )
        got = recorded_step(learner, one.stacked, theta, one.carry, batch)(theta, one.carry, batch)
        leaves, wanted = torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(expected)
        assert len(leaves) == len(wanted)
        assert all(torch.equal(a, b) for a, b in zip(leaves, wanted, strict=True))
        one.carry, one.step = got, one.step + 1


@pytest.mark.parametrize("family", ["digits_mlp", "quadratic", "text_rnn"])
def test_knobs_held_still_are_adamw(family):
    one = runs(family=family)
    one.advance(values(), 16, ())
    adamw = get_learner("adamw", lr=3e-3)
    trace = inner.run(adamw, {}, build(family), [11, 12, 13], 16)
    expected = torch.func.vmap(flat)(trace.carry["params"])
    assert torch.allclose(one.weights(), expected, rtol=2e-5, atol=2e-6)


def test_every_run_follows_its_own_knobs():
    together = runs()
    rates = values()
    rates[:, 0] = torch.tensor([1e-4, 1e-3, 1e-2])
    together.advance(rates, 8, ())
    for i in range(RUNS):
        alone = InnerRuns([build()[i]], [11 + i], "adamw")
        alone.advance(rates[i : i + 1], 8, ())
        assert torch.allclose(alone.weights()[0], together.weights()[i], rtol=1e-4, atol=1e-6)


def test_corrections_stay_exact_when_betas_change():
    one = runs()
    first, second = values(one_minus_beta2=1e-2), values(one_minus_beta2=1e-3, one_minus_beta1=0.5)
    one.advance(first, 3, ())
    one.advance(second, 5, ())
    weights = {"1": [0.1, 0.1, 0.1, 0.5, 0.5], "2": [1e-2, 1e-2, 1e-2, 1e-3, 1e-3]}
    for name, steps in weights.items():
        left = 1.0
        for share in steps:
            left *= 1 - share
        assert one.carry["state"][f"ones{name}"].tolist() == pytest.approx([1 - left] * RUNS, rel=1e-5)


def test_batches_are_the_same_however_many_are_drawn_ahead(monkeypatch):
    whole = runs()
    whole.advance(values(), 8, ())
    monkeypatch.setattr("metaopt_envs.inner_runs._AHEAD_STEPS", 3)
    often = runs()
    often.advance(values(), 8, ())
    assert torch.equal(often.weights(), whole.weights())


@pytest.mark.parametrize("name", INNER)
def test_measuring_changes_no_bit_of_a_run(name):
    quiet, watched = runs(name), runs(name)
    quiet.advance(values(), 8, ())
    watched.advance(values(), 8, range(8))
    assert torch.equal(quiet.weights(), watched.weights())
    assert quiet.seen()[0].isnan().all()
    statistics, loss = watched.seen()
    assert statistics.shape == (RUNS, len(STATISTICS))
    assert statistics.isfinite().all()
    assert loss.isfinite().all()


def test_what_was_seen_is_the_mean_since_the_last_look():
    one = runs()
    losses = []
    for step in range(4):
        before = one.carry
        batch = one._batch()
        losses.append(
            training_step(ControlledLearner(), one.stacked.program, True, False)(
                {"values": values()}, one.stacked.numbers, one.stacked.shared, before, batch
            )[1]
        )
        one.advance(values(), step + 1, ())
        if step == 1:
            assert torch.allclose(one.seen()[1], torch.stack(losses[:2]).mean(0), rtol=1e-5)
    assert torch.allclose(one.seen()[1], torch.stack(losses[2:]).mean(0), rtol=1e-5)
    assert all((value == 0).all() for value in forget_steps(one.carry)["seen"].values())


def test_statistics_match_those_of_single_tensors():
    from metaopt.learners.policies.unitless import tensor_statistics

    one = runs()
    one.advance(values(), 3, ())
    before, batch = one.carry, one._batch()
    one.advance(values(), 4, (3,))
    i = 1
    task = tasks.build(tasks.get("digits_mlp").sample(tasks.get("digits_mlp").templates("meta_train")[0], i, (16, 16)))
    params = {name: value[i] for name, value in before["params"].items()}
    grads, _, _ = task.gradients(params, {name: value[i] for name, value in batch.items()}, {})
    sizes = [value.numel() for value in params.values()]
    state = {name: value[i] for name, value in before["state"].items()}
    rows = []
    for grad, m, v, param in zip(grads.values(), state["m"].split(sizes), state["v"].split(sizes), params.values(), strict=True):
        m = m.view_as(grad) + 0.1 * (grad - m.view_as(grad))
        v = v.view_as(grad) + 1e-3 * (grad * grad - v.view_as(grad))
        momentum, root = m / (1 - 0.9**4), (v / (1 - 0.999**4)).sqrt()
        rows.append(tensor_statistics(grad, momentum, root, 1e-8, momentum / (root + 1e-8) + 1e-2 * param, param, 3e-3))
    assert torch.allclose(one.seen()[0][i], torch.stack(rows).mean(0), rtol=2e-3, atol=2e-4)


def test_halves_of_the_held_out_examples_differ_and_quadratics_have_one():
    raw = [runs().heldout(half)[0] for half in (DECIDING, SCORING)]
    assert not torch.equal(*raw)
    raw = [runs(family="quadratic").heldout(half)[0] for half in (DECIDING, SCORING)]
    assert torch.equal(*raw)


def test_restore_gives_back_weights_and_optimizer_of_the_chosen_runs():
    one = runs()
    one.advance(values(), 4, ())
    kept, weights = one.copy(), one.weights()
    one.advance(values(), 8, ())
    later = one.weights()
    one.restore(kept, torch.tensor([True, False, True]))
    got = one.weights()
    assert torch.equal(got[[0, 2]], weights[[0, 2]])
    assert torch.equal(got[1], later[1])
    assert torch.equal(one.carry["state"]["m"][0], kept["state"]["m"][0])
    assert one.step == 8


def test_choose_takes_rows():
    a, b = {"x": torch.zeros(2, 3), "y": torch.zeros(2)}, {"x": torch.ones(2, 3), "y": torch.ones(2)}
    got = choose(torch.tensor([True, False]), a, b)
    assert got["x"].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert got["y"].tolist() == [0, 1]


def test_unknown_inner_optimizer_is_named():
    with pytest.raises(Exception, match=r"inner optimizer 'adamv' is unknown.*adamw"):
        ControlledLearner("adamv")


def test_knob_order_is_that_of_theta():
    assert KNOBS[:5] == tuple(ADAMW)
