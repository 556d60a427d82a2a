"""Towers as learners: derivatives of a step, the base optimizer without a tower, scopes, schedules, and runs from any first rate."""

import pickle

import pytest
import torch

from metaopt import inner, tasks
from metaopt.learners import SCHEDULES, WHOLE_MODEL, GradientLearner
from metaopt.learners.hypergradients import BASES, PRESETS

LEARNABLE = {
    "hypergradient_sgd": ("lr", "weight_decay"),
    "hypergradient_momentum": ("lr", "momentum", "weight_decay"),
    "hypergradient_adam": ("lr", "beta1", "beta2", "eps", "weight_decay"),
    "hypergradient_adamw": ("lr", "beta1", "beta2", "eps", "weight_decay"),
    "hypergradient_rmsprop": ("lr", "alpha", "eps", "momentum", "weight_decay"),
    "hypergradient_lion": ("lr", "weight_decay"),
}
OWN = {"weight_decay": 1e-2, "eps": 1e-3, "lr": 0.1}  # sizes at which differences keep their digits


def preset(name, **options):
    fields = PRESETS[name].__dataclass_fields__
    own = {key: value for key, value in OWN.items() if key in fields} | ({"momentum": 0.5} if "momentum" in fields else {})
    return PRESETS[name](**(own | options))


def params(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in {"w": (3, 2), "b": (4,)}.items()}


def walk(learner, steps, theta=None):
    """Return (params, state) after some steps on gradients that are drawn, not computed."""
    theta = theta or {}
    h, now = learner.hypers(theta), params()
    state = learner.init_state(h, now)
    for t in range(steps):
        now, state = learner.update(h, now, params(t + 1), state, torch.tensor(t), h["lr"], dict.fromkeys(now, 1.0))
    return now, state


def bowl(horizon=40):
    family = tasks.get("quadratic")
    return family.build(family.sample("8x4-minimum", 1, (horizon, horizon))).to(dtype=torch.float64)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("steps", [1, 3])
def test_changes_equal_central_differences_of_the_last_step(name, steps):
    learner = preset(name, learn=LEARNABLE[name], hyper_lr=0.0)
    h = learner.hypers({})
    before, state = walk(learner, steps - 1)
    grads, t, ones = params(steps), torch.tensor(steps - 1), dict.fromkeys(before, 1.0)
    _, after = learner.update(h, before, grads, state, t, h["lr"], ones)
    for j, hyperparameter in enumerate(learner.learn):
        ends = []
        for side in (1, -1):
            eps = 1e-6 * max(h[hyperparameter], 1e-2)
            moved = learner.optimizer.hyperparameters | {hyperparameter: h[hyperparameter] + side * eps}
            ends.append(
                {k: p - moved["lr"] * learner.optimizer.update(moved, p, grads[k], state["rule"][k], t)[0] for k, p in before.items()}
            )
        for k in before:
            numeric = (ends[0][k] - ends[1][k]) / (2 * eps)
            torch.testing.assert_close(after["change"][k][j], numeric, rtol=1e-5, atol=1e-8, msg=f"{hyperparameter} of {k}")


@pytest.mark.parametrize("name", PRESETS)
def test_without_a_rate_of_its_own_a_tower_leaves_the_base_optimizer_as_it_is(name):
    learner = preset(name, hyper_lr=0.0, link="identity")
    plain = GradientLearner(BASES[learner.base](**learner.optimizer.hyperparameters))
    runs = [inner.run(one, {}, [bowl()], [3], 40).loss for one in (learner, plain)]
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", PRESETS)
def test_a_rate_goes_up_while_gradients_agree_and_down_when_they_turn(name):
    learner = preset(name, hyper_lr=1e-3)
    h, now = learner.hypers({}), params()
    state = learner.init_state(h, now)
    rates = []
    for t, sign in enumerate((1, 1, -1)):
        grads = {key: sign * value for key, value in params(9).items()}
        now, state = learner.update(h, now, grads, state, torch.tensor(t), h["lr"], dict.fromkeys(now, 1.0))
        rates.append(float(learner.tower.values(state["tower"])["lr"]))
    assert rates[0] == pytest.approx(learner.lr, rel=1e-12)  # nothing to compare with yet
    assert rates[1] > rates[0]
    assert rates[2] < rates[1]


def test_adams_first_step_says_nothing_about_its_betas():
    _, state = walk(preset("hypergradient_adam", learn=("beta1", "beta2")), 2)
    begun = preset("hypergradient_adam").tower.start({"lr": torch.tensor([0.1])})
    assert state["tower"]["x0"].tolist() == [
        [pytest.approx(float(torch.logit(torch.tensor(b, dtype=torch.float64))), rel=1e-6) for b in (0.9, 0.999)]
    ]
    assert float(state["tower"]["seen"]) == float(begun["seen"]) + 1


def test_towers_of_tensors_move_apart_and_a_tower_of_all_sums_them():
    apart, together = (
        walk(preset("hypergradient_sgd", mode=mode, hyper_lr=1e-3, link="identity", moves="additive"), 2)[1]["tower"]
        for mode in ("per_tensor", "global")
    )
    moves = apart["x0"][:, 0] - 0.1
    assert moves[0] != moves[1]
    assert float(together["x0"][0, 0] - 0.1) == pytest.approx(float(moves.sum()), rel=1e-12)


def test_the_gradient_is_compared_with_the_step_that_led_there():
    """By hand: lr_2 = lr + rate * g_2 . u_1, and u_1 holds the weight decay of where it was taken."""
    learner = preset("hypergradient_sgd", hyper_lr=1e-3, link="identity", moves="additive")
    _, state = walk(learner, 2)
    change = sum((params(2)[k] * (params(1)[k] + 1e-2 * params(0)[k])).sum() for k in params())
    assert float(state["tower"]["x0"][0, 0]) == pytest.approx(0.1 + 1e-3 * float(change), rel=1e-12)


def test_a_schedule_multiplies_the_learned_rate():
    scheduled = preset("hypergradient_sgd", hyper_lr=0.0, schedule=SCHEDULES["warmup_cosine"])
    plain = GradientLearner(BASES["sgd"](lr=0.1, weight_decay=1e-2), SCHEDULES["warmup_cosine"])
    runs = [inner.run(one, {}, [bowl()], [3], 40).loss for one in (scheduled, plain)]
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-12, atol=0)


def test_rates_and_rates_of_rates_can_be_swept():
    theta = {"lr": torch.tensor([1e-4, 0.1]).double(), "hyper_lr": torch.tensor([1e-2, 1e-3]).double()}
    learner = preset("hypergradient_sgd")
    stacked = inner.run(learner, theta, [bowl()] * 2, [3, 3], 30, theta_stacked=True).loss
    for i in range(2):
        one = inner.run(learner, {name: value[i] for name, value in theta.items()}, [bowl()], [3], 30).loss
        torch.testing.assert_close(stacked[:, i : i + 1], one, rtol=1e-12, atol=0)


def test_a_gradient_that_is_not_finite_leaves_the_tower_alone():
    learner = preset("hypergradient_sgd")
    h = learner.hypers({})
    now, state = walk(learner, 3)
    bad = params(4) | {"b": torch.full((4,), torch.nan, dtype=torch.float64)}
    _, after = learner.update(h, now, bad, state, torch.tensor(3), h["lr"], dict.fromkeys(now, 1.0))
    assert torch.equal(after["tower"]["x0"], state["tower"]["x0"])
    assert float(after["tower"]["skipped"]) == 1.0


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_learners_without_meta_parameters_that_travel_to_workers(name):
    learner = WHOLE_MODEL[name]()
    assert learner.init_theta(0) == {}
    assert hash(learner) == hash(WHOLE_MODEL[name]())
    before = pickle.dumps(learner)
    assert learner.tower.parts
    assert pickle.dumps(learner) == before  # kept runs are filed under it
    assert pickle.loads(before) == learner  # noqa: S301
    assert bool(torch.isfinite(inner.run(learner, {}, [bowl()], [0], 10).loss).all())
