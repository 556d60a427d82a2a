"""A policy as a learner: the environment's closed loop, run by run, and what keeps it from harm."""

import copy
import pickle

import pytest
import torch

from metaopt import inner, seeds, tasks
from metaopt.errors import ConfigError
from metaopt.learners.policies.controlled import flat
from metaopt.learners.policies.knobs import HEADS, KNOBS
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec, greedy
from metaopt.learners.policies.policy_learner import PolicyLearner
from metaopt_envs import Bucket, Settings
from metaopt_envs.group import Group, inner_start

HORIZON, DECISIONS = 32, 4
SEEDS = (5, 6, 7, 8)
SPEC = PolicySpec(hidden=12)


def network(loud=200.0, spec=SPEC, seed=0):
    """Choices that depend on what is seen."""
    made = PolicyNetwork(spec, seeds.key("policy of a test", seed)).requires_grad_(False)
    made.heads.weight.mul_(loud)
    return made


def theta(**options):
    return dict(network(**options).state_dict())


def specs(horizon=HORIZON, family="quadratic", template="10x1-gradient"):
    return [tasks.get(family).sample(template, draw, (horizon, horizon)) for draw in (1, 2)]


def run(learner, weights, chosen, horizon=HORIZON, run_seeds=SEEDS):
    built = [tasks.build(spec) for spec in chosen]
    return inner.run(learner, weights, [built[i % len(built)] for i in range(len(run_seeds))], run_seeds, horizon)


def closed_loop(made, bucket, highest=1.0):
    """The environment's own: values after each decision [T, E, K] and final weights [E, D]."""
    settings = Settings(
        table=made.spec.table,
        knobs=made.spec.knobs,
        registers=False,
        knob_missing=0.0,
        eval_missing=1.0,
        perturbed=0.0,
        highest_lr=highest,
    )
    group = Group(bucket, settings, 0, len(SEEDS), inner_start(bucket.inner), True, SEEDS)
    seen, state, values = group.begin(), made.initial_state((len(SEEDS),)), []
    for _ in group.decisions:
        logits, state = made.step(seen.pi, state)
        seen = group.act(torch.where(group.head_mask, greedy(logits, made.nvec), -1))
        values.append(group.values.clone())
    return torch.stack(values), group.inner.weights()


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("unitless_adam", marks=pytest.mark.slow)])
def test_it_is_the_closed_loop_of_the_environment(optimizer):
    made = network()
    values, weights = closed_loop(made, Bucket("quadratic", "10x1-gradient", HORIZON, DECISIONS, (1, 2), optimizer))
    assert values[:, :, 0].unique().numel() > 1
    found = run(PolicyLearner(SPEC, optimizer, DECISIONS), theta(), specs())
    assert torch.allclose(found.carry["policy"]["mind"]["values"], values[-1], rtol=1e-9)
    assert torch.allclose(torch.stack([flat({k: v[i] for k, v in found.carry["params"].items()}) for i in range(4)]), weights, rtol=1e-5)


@pytest.mark.slow
def test_so_it_is_on_a_network_with_several_tensors():
    made = network(seed=3)
    bucket = Bucket("digits_mlp", "16-tanh-b32", 48, 6, (1, 2))
    values, weights = closed_loop(made, bucket, 0.1)
    found = run(PolicyLearner(SPEC, "adamw", 6, highest=0.1), theta(seed=3), specs(48, "digits_mlp", "16-tanh-b32"), 48)
    assert torch.allclose(found.carry["policy"]["mind"]["values"], values[-1], rtol=1e-9)
    assert torch.allclose(torch.stack([flat({k: v[i] for k, v in found.carry["params"].items()}) for i in range(4)]), weights, rtol=1e-3)


def test_runs_of_different_lengths_decide_by_their_own():
    learner, weights = PolicyLearner(SPEC, decisions=DECISIONS), theta()
    short, long = specs(16)[0], specs(32)[0]
    both = run(learner, weights, [short, long], 16, (5, 6))
    alone = run(learner, weights, [short], 16, (5,))
    assert torch.equal(both.carry["policy"]["mind"]["values"][0], alone.carry["policy"]["mind"]["values"][0])
    whole = run(learner, weights, [long], 16, (6,))
    assert torch.equal(both.carry["policy"]["mind"]["values"][1], whole.carry["policy"]["mind"]["values"][0])
    assert (both.carry["policy"]["mind"]["observation"]["cdf.decisions"] == torch.tensor([3, 2])).all()


def one_run(learner, weights, steps, break_at=None, horizon=HORIZON):
    """A run without vmap; the mean training loss is made infinite before a step. Returns rates by step and the carry."""
    task = tasks.build(specs(horizon)[0])
    carry, rates = learner.init(weights, task, seeds.key("run")), []
    for t in range(steps):
        batch = task.batch(seeds.key("batch"), torch.tensor(t))
        if t == break_at:
            carry["seen"]["loss"] = torch.tensor(torch.inf)
        carry, _ = learner.advance(weights, task, carry, batch)
        rates.append(float(carry["policy"]["mind"]["values"][0]))
    return rates, carry


def test_without_vmap_it_is_the_same():
    learner, weights = PolicyLearner(SPEC, decisions=DECISIONS), theta()
    rates, carry = one_run(learner, weights, HORIZON)
    stacked = torch.func.vmap(lambda key: learner.init(weights, tasks.build(specs()[0]), key)["policy"]["mind"]["values"])
    assert stacked(torch.tensor([1, 2])).shape == (2, len(KNOBS))
    assert rates[:4] == [1e-3] * 4  # probe steps
    assert len(set(rates)) > 1
    assert int(carry["policy"]["t"]) == HORIZON
    assert int(carry["policy"]["mind"]["observation"]["cdf.decisions"]) == DECISIONS


def always(choice):
    made = network(0.0)
    made.heads.bias[sum(made.nvec[:1]) + choice] = 1.0
    return dict(made.state_dict())


def test_rates_stay_within_the_limits():
    learner = PolicyLearner(SPEC, decisions=DECISIONS, lowest=5e-4, highest=5e-3)
    assert max(one_run(learner, always(6), HORIZON)[0]) == pytest.approx(5e-3)
    assert min(one_run(learner, always(0), HORIZON)[0]) == pytest.approx(5e-4)


def test_a_run_that_is_lost_falls_along_a_cosine_from_half_its_rate():
    learner, weights = PolicyLearner(SPEC, decisions=DECISIONS), always(4)
    rates, carry = one_run(learner, weights, HORIZON, break_at=11)
    mind = carry["policy"]["mind"]
    assert int(mind["handed"]) == 11
    assert rates[10] == pytest.approx(1.25e-3)
    assert set(rates[11:]) == {rates[10] / 2}
    used = [float(learner._knobs(_mind(mind), torch.tensor(t), torch.tensor(HORIZON))[0]) for t in (11, 21, 31)]
    assert used[0] == pytest.approx(rates[11])
    assert used[0] > used[1] > used[2] > 0
    assert used[2] < 0.02 * used[0]


def test_weights_that_are_not_finite_are_enough_to_be_lost():
    """They may have become so in the very last step, and no training loss is that of them yet."""
    learner, weights, task = PolicyLearner(SPEC, decisions=DECISIONS), always(4), tasks.build(specs()[0])
    carry = learner.init(weights, task, seeds.key("run"))
    for t in range(12):
        if t == 11:
            carry["params"] = {name: torch.full_like(value, torch.nan) for name, value in carry["params"].items()}
        carry, _ = learner.advance(weights, task, carry, task.batch(seeds.key("batch"), torch.tensor(t)))
    assert int(carry["policy"]["mind"]["handed"]) == 11


def _mind(values):
    from metaopt.learners.policies.policy_learner import _Mind

    return _Mind(**values)


def test_without_a_guard_it_goes_on_deciding():
    learner = PolicyLearner(SPEC, decisions=DECISIONS, guard=False)
    rates, carry = one_run(learner, always(4), HORIZON, break_at=11)
    assert int(carry["policy"]["mind"]["handed"]) == -1
    assert rates[-1] == pytest.approx(1e-3 * 1.25**DECISIONS)


def test_knobs_that_it_was_not_trained_on_keep_their_values():
    spec = PolicySpec(hidden=12, knobs=("lr",))
    found = run(PolicyLearner(spec, decisions=DECISIONS), theta(spec=spec), specs())
    values = found.carry["policy"]["mind"]["values"]
    assert torch.equal(values[:, 1:], inner_start("adamw")[1:].expand(4, -1))
    assert (found.carry["policy"]["mind"]["action"][:, [0, *range(2, len(HEADS))]] == -1).all()


def test_theta_may_differ_between_runs():
    learner = PolicyLearner(SPEC, decisions=DECISIONS)
    both = [theta(), theta(seed=1)]
    stacked = {name: torch.stack([one[name] for one in both]) for name in both[0]}
    built = [tasks.build(specs()[0])] * 2
    found = inner.run(learner, stacked, built, (5, 5), HORIZON, theta_stacked=True).carry["policy"]["mind"]["values"]
    for place, one in enumerate(both):
        alone = run(learner, one, specs()[:1], run_seeds=(5,)).carry["policy"]["mind"]["values"]
        assert torch.allclose(found[place], alone[0], rtol=1e-9)


def test_a_fresh_network_is_its_own_start():
    learner = PolicyLearner(SPEC)
    assert learner.init_theta(1).keys() == theta().keys()
    assert not torch.equal(learner.init_theta(1)["heads.weight"], learner.init_theta(2)["heads.weight"])


def test_it_is_plain_data():
    learner = PolicyLearner(SPEC, decisions=8)
    assert pickle.loads(pickle.dumps(learner)) == copy.deepcopy(learner) == learner  # noqa: S301
    assert hash(learner) == hash(PolicyLearner(SPEC, decisions=8))


def test_bad_arguments_are_one_line():
    with pytest.raises(ConfigError, match="'adamv' is unknown"):
        PolicyLearner(SPEC, "adamv")
    with pytest.raises(ConfigError, match="decisions must be >= 1, got 0"):
        PolicyLearner(SPEC, decisions=0)
    with pytest.raises(ConfigError, match=r"0 < lowest <= highest, got 0\.1 and 0\.01"):
        PolicyLearner(SPEC, lowest=0.1, highest=0.01)
