"""The learner that update rules make: schedules, evaluation without side effects, the registry."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt import learners, seeds, tasks
from metaopt.errors import ConfigError
from metaopt.learners import SCHEDULES, GradientLearner, Schedule, schedule_factor
from metaopt.learners.update_rules import MODEL_RULES, get_rule


def factor(schedule: Schedule, t: int, horizon: float) -> float:
    return float(schedule_factor(schedule, torch.tensor(t), torch.tensor(horizon, dtype=torch.float64)))


def test_warmup_and_cosine_by_hand() -> None:
    schedule = Schedule(warmup_frac=0.1, final_frac=0.2)
    assert factor(schedule, 0, 100.0) == pytest.approx(0.1)
    assert factor(schedule, 4, 100.0) == pytest.approx(0.5)
    assert factor(schedule, 9, 100.0) == pytest.approx(1.0)
    assert factor(schedule, 10, 100.0) == pytest.approx(1.0)
    assert factor(schedule, 55, 100.0) == pytest.approx(0.6)  # half way between 1 and 0.2
    assert factor(schedule, 100, 100.0) == pytest.approx(0.2)
    assert factor(schedule, 10_000, 100.0) == pytest.approx(0.2)


def test_constant_schedule_and_none_at_all() -> None:
    assert {factor(Schedule(), t, 50.0) for t in (0, 1, 49, 50, 500)} == {1.0}
    assert factor(Schedule(0.0, 0.0), 0, 50.0) == 1.0  # no warm-up: the first step is a whole one
    assert factor(Schedule(0.0, 0.0), 50, 50.0) == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3000), st.integers(1, 2000), st.floats(0.0, 0.9), st.floats(0.0, 1.0))
def test_factor_stays_in_range_and_falls_after_warmup(t: int, horizon: int, warmup: float, final: float) -> None:
    schedule = Schedule(warmup, final)
    now, after = factor(schedule, t, float(horizon)), factor(schedule, t + 1, float(horizon))
    assert 0.0 <= now <= 1.0
    if t >= warmup * horizon:
        assert after <= now + 1e-9
        assert now >= final - 1e-9


def test_warmup_stable_decay_by_hand() -> None:
    schedule = Schedule(0.1, 0.2, "linear", stable_frac=0.5)
    assert factor(schedule, 4, 100.0) == pytest.approx(0.5)
    assert [factor(schedule, t, 100.0) for t in (9, 30, 60)] == [1.0, 1.0, 1.0]
    assert factor(schedule, 80, 100.0) == pytest.approx(0.6)  # half way down
    assert [factor(schedule, t, 100.0) for t in (100, 500)] == pytest.approx([0.2, 0.2])


def test_inverse_square_root_by_hand() -> None:
    schedule = Schedule(0.05, 0.25, "inverse_sqrt")
    assert [factor(schedule, t, 100.0) for t in (0, 4)] == pytest.approx([0.2, 1.0])
    assert [factor(schedule, t - 1, 100.0) for t in (20, 45)] == pytest.approx([0.5, 1 / 3])  # sqrt(5 / t)
    assert factor(schedule, 999, 100.0) == 0.25
    assert factor(Schedule(0.0, 0.0, "inverse_sqrt"), 3, 100.0) == pytest.approx(0.5)  # without warm-up: 1 / sqrt(t)


@pytest.mark.parametrize("name", SCHEDULES)
def test_named_schedules_reach_one_and_never_pass_it(name: str) -> None:
    factors = [factor(SCHEDULES[name], t, 200.0) for t in range(200)]
    assert max(factors) == 1.0
    assert min(factors) > 0.0
    peak = factors.index(1.0)
    assert all(a >= b for a, b in zip(factors[peak:], factors[peak + 1 :], strict=False)), "only down after warm-up"


def test_factor_keeps_the_dtype_of_the_horizon() -> None:
    t = torch.tensor(3)
    assert schedule_factor(Schedule(), t, torch.tensor(9.0, dtype=torch.float64)).dtype == torch.float64
    assert schedule_factor(Schedule(), t, 9).dtype == torch.float32
    named = learners.named_schedule("warmup_cosine")
    assert float(schedule_factor(named, t, 9)) == pytest.approx(factor(named, 3, 9.0), rel=1e-6)


def quadratic(horizon: int = 20):
    family = tasks.get("quadratic")
    return family.build(family.sample("8x4-minimum", 0, (horizon, horizon)))


def test_one_advance_is_a_gradient_step() -> None:
    task, key = quadratic(), seeds.key("run")
    learner = GradientLearner(get_rule("sgd", lr=0.25), Schedule(0.5, 0.0), weight_decay=0.1)
    carry = learner.init({}, task, key)
    batch = task.batch(key, torch.tensor(0))
    after, record = learner.advance({}, task, carry, batch)
    x = carry["params"]["x"].clone().requires_grad_()
    loss = task.loss({"x": x}, batch)
    (grad,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(record.loss, loss.detach())
    torch.testing.assert_close(after["params"]["x"], x - 0.25 * 0.1 * (grad + 0.1 * x))  # warm-up over 10 of 20 steps
    assert int(carry["t"]) == 0  # the carry that came in is as it was
    assert int(after["t"]) == 1


# What makes a rule small, or begin as an optimizer that works.
OPTIONS: dict[str, dict[str, object]] = {"velo": {"lstm_hidden": 8, "mixture": 4}, "lstm": {"skip": True, "start": "adam"}}


@pytest.mark.parametrize("name", learners.names())
def test_every_learner_runs_learns_and_does_not_change_its_carry(name: str) -> None:
    task, key = quadratic(60), seeds.key("run")
    learner = learners.get(name, **OPTIONS.get(name, {}))
    theta = learner.init_theta(0)
    if name in ("adam", "adamw", "nadam", "radam", "muon", "lion") or (theta and name != "celo2_base"):  # slow at their own rates
        learner = learners.learner_of(learner.rule)
        theta = {**theta, "lr": torch.tensor(30.0 if theta else 0.1)}
    carry = learner.init(theta, task, key)
    start = {k: v.clone() for k, v in carry["params"].items()}
    first = task.normalise(learner.advance(theta, task, carry, task.heldout(key, torch.tensor(0)))[1].loss)
    assert all(torch.equal(carry["params"][k], start[k]) for k in start)
    for t in range(60):
        carry, _ = learner.advance(theta, task, carry, task.batch(key, torch.tensor(t)))
    last = task.normalise(learner.advance(theta, task, carry, task.heldout(key, torch.tensor(0)))[1].loss)
    assert float(last) < 0.5 * float(first)
    assert int(carry["t"]) == 60


def test_registry() -> None:
    assert learners.names() == (
        "sgd", "momentum", "nesterov", "adam", "adamw", "nadam", "rmsprop", "radam", "adafactor", "muon", "lion",
        "mlp", "learnable_adam", "celo2_base", "small_fc", "celo2", "nn_adam", "star", "lstm",
        *MODEL_RULES,
    )  # fmt: skip
    learner = learners.get("celo2_base", schedule="warmup_cosine", weight_decay=0.1, output="rms")
    assert (learner.schedule, learner.weight_decay, learner.rule.output) == (Schedule(0.05, 0.0), 0.1, "rms")
    assert learners.get("adam") == learners.get("adam")
    assert hash(learners.get("adam")) == hash(learners.get("adam"))
    assert learners.get("adam") != learners.get("adam", lr=0.5)
    with pytest.raises(ConfigError, match=r"schedule 'cosine' is unknown; did you mean 'warmup_cosine'\?"):
        learners.get("adam", schedule="cosine")
    assert math.isclose(learners.get("sgd", lr=0.5).rule.hyperparameters["lr"], 0.5)
