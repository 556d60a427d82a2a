"""Celo: one schedule for all tensors, what its multiplier is exactly, and its two phases."""

import pytest
import torch
from torch import Tensor

from metaopt import inner, seeds, tasks
from metaopt.config.outer import OptimizerConfig
from metaopt.learners.model_rule_learner import ModelRuleLearner
from metaopt.learners.update_rules import Celo, get_model_rule
from metaopt.outer.phases import Phase
from tests.learners.model_rule_reference import CeloReference

SHAPES = {"m": (3, 2), "v": (4,), "s": ()}
SMALL = {"schedule_hidden": 6}


def draw(*parts: object, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float64) -> Tensor:
    return seeds.normal(seeds.key("test", *parts), shape, dtype)


def run(rule: Celo, theta: dict[str, Tensor], steps: int, horizons: list[float] | None = None) -> list[dict[str, Tensor]]:
    """Directions on fixed parameters, gradients and losses."""
    dtype = next(iter(theta.values())).dtype
    params = {name: draw("p", name, shape=shape, dtype=dtype) for name, shape in SHAPES.items()}
    state, found = rule.init_state(theta, params), []
    for t in range(steps):
        grads = {name: draw("g", name, t, shape=shape, dtype=dtype) for name, shape in SHAPES.items()}
        horizon = torch.tensor(30.0 if horizons is None else horizons[t], dtype=dtype)
        directions, state = rule.update(theta, params, grads, state, torch.tensor(t), torch.tensor(2.0 / (t + 1), dtype=dtype), horizon)
        found.append(directions)
    return found


def trained(rule: Celo) -> dict[str, Tensor]:
    """Theta in float64 with a scheduler that does something."""
    theta = {name: value.double() for name, value in rule.init_theta(0).items()}
    return {name: value + (0.3 * draw(name, shape=tuple(value.shape)) if "schedule" in name else 0.0) for name, value in theta.items()}


def test_an_untrained_scheduler_is_none_to_the_bit() -> None:
    rule = get_model_rule("celo")
    theta = rule.init_theta(4)
    shared, horizon = rule.init_state(theta, {})["shared"], torch.tensor(30.0)
    for t in range(40):
        multiplier, shared = rule.schedule(theta, shared, torch.tensor(t), 3.0 + draw("l", t, dtype=torch.float32), horizon)
        assert multiplier.tolist() == [1.0]
    assert shared["hidden"].any()


def test_the_multiplier_is_a_tenth_of_an_exponential() -> None:
    rule = get_model_rule("celo", **SMALL)
    theta = trained(rule)
    reference = CeloReference({name: value.numpy() for name, value in theta.items()}, SHAPES, {})
    params = {name: draw("p", name, shape=shape).numpy() for name, shape in SHAPES.items()}
    shared, horizon = rule.init_state(theta, {})["shared"], torch.tensor(30.0, dtype=torch.float64)
    for t in range(20):
        multiplier, shared = rule.schedule(theta, shared, torch.tensor(t), torch.tensor(2.0 / (t + 1)).double(), horizon)
        reference.step(params, params, t, float(torch.tensor(2.0 / (t + 1))), 30.0)
        assert len(set(reference.multipliers)) == 1  # as released there is one for each tensor, and they are equal
        assert float(multiplier) == pytest.approx(reference.multipliers[0], rel=1e-12)


def test_one_schedule_multiplies_every_step() -> None:
    """Relative to the first phase, all weights of all tensors are multiplied by the same number, which moves."""
    rule = get_model_rule("celo", **SMALL)
    theta, plain = trained(rule), {name: value.double() for name, value in rule.init_theta(0).items()}
    ratios = []
    for scheduled, alone in zip(run(rule, theta, 8), run(rule, plain, 8), strict=True):
        ratio = torch.cat([(scheduled[name] / alone[name]).reshape(-1) for name in SHAPES])
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-7, atol=0)  # float32 log 10 in the untrained bias
        ratios.append(float(ratio[0]))
    assert max(ratios) - min(ratios) > 1e-3


def test_phases_split_theta_in_two() -> None:
    theta = Celo().init_theta(0)
    rule, schedule = (Phase(0, 0, 1, (pattern,), OptimizerConfig(lr=1.0), None) for pattern in ("rule_*", "schedule_*"))
    assert {**rule.split(theta)[0], **schedule.split(theta)[0]}.keys() == theta.keys()
    assert rule.split(theta)[1].keys() == schedule.split(theta)[0].keys()


def test_the_second_phase_can_leave_its_start() -> None:
    """The head's gradient is not zero although its weights are."""
    rule = get_model_rule("celo", **SMALL)
    theta = {name: value.requires_grad_() for name, value in rule.init_theta(0).items()}
    last = run(rule, theta, 3)[-1]
    grads = torch.autograd.grad(last["m"].sum(), [theta["schedule_head_weight"], theta["schedule_head_bias"]])
    assert all(value.abs().min() > 0 for value in grads)


def test_celo_adam_begins_as_adam() -> None:
    rule = get_model_rule("celo", direction="adam")
    theta = {name: value.double() for name, value in rule.init_theta(0).items()}
    assert all(name.startswith("schedule_") for name in theta)
    params = {name: draw("p", name, shape=shape).requires_grad_() for name, shape in SHAPES.items()}
    adam = torch.optim.Adam(params.values(), lr=1e-3)
    for t, directions in enumerate(run(rule, theta, 10)):
        before = {name: p.detach().clone() for name, p in params.items()}
        for name, p in params.items():
            p.grad = draw("g", name, t, shape=SHAPES[name])
        adam.step()
        for name, p in params.items():
            torch.testing.assert_close(before[name] - p.detach(), directions[name], rtol=1e-6, atol=1e-12)


def test_the_horizon_may_change_during_a_run() -> None:
    """Until it does nothing is different; then the schedule is another one."""
    rule = get_model_rule("celo", **SMALL)
    theta = trained(rule)
    same, other = run(rule, theta, 10, [30.0] * 10), run(rule, theta, 10, [30.0] * 5 + [300.0] * 5)
    assert all(torch.equal(same[t]["m"], other[t]["m"]) for t in range(5))
    assert not any(torch.equal(same[t]["m"], other[t]["m"]) for t in range(5, 10))
    assert all(torch.isfinite(step).all() for steps in other for step in steps.values())


@pytest.mark.parametrize(("name", "options", "lr"), [
    ("velo", {"lstm_hidden": 8, "mixture": 4}, 30.0), ("celo", {}, 30.0), ("celo", {"direction": "adam"}, 30.0), ("rnn_mlp", {}, 30.0),
    ("hierarchical_rnn", {}, 30.0),
])  # fmt: skip
def test_untrained_rules_train(name: str, options: dict[str, object], lr: float) -> None:
    """Two particles of a noisy bowl lose three quarters of their loss in 60 steps."""
    family = tasks.get("quadratic")
    bowls = [family.build(family.sample("10x1-none", seed, (60, 60))) for seed in (0, 1)]
    learner = ModelRuleLearner(get_model_rule(name, **options))
    theta = {**learner.init_theta(0), "lr": torch.tensor(lr)}
    losses = inner.run(learner, theta, bowls, [0, 1], 60).loss
    assert (losses[-1] < 0.25 * losses[0]).all()
