"""The grid's schedules: their values, their agreement with the learners' own, and runs under several of them at once."""

import pytest
import torch

from metaopt import inner, learners, tasks
from metaopt.baselines.grid_schedules import GRID_SCHEDULES, ScheduleByNumber, grid_factors
from metaopt.learners.learner import GradientLearner, Schedule, schedule_factor
from metaopt.learners.update_rules import get_rule

HORIZON = torch.tensor(40.0)


def factor(name, t):
    return float(grid_factors(torch.tensor(t), HORIZON)[GRID_SCHEDULES.index(name)])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("constant", (1.0, 1.0, 1.0, 1.0, 1.0)),
        ("multi_step", (1.0, 1.0, 0.1, 0.01, 0.01)),
        ("linear", (1.0, 0.75, 0.5, 0.25, 0.0)),
        ("quadratic", (1.0, 0.5625, 0.25, 0.0625, 0.0)),
        ("exponential", (1.0, 10**-0.5, 0.1, 10**-1.5, 0.01)),
        ("cosine", (1.0, 0.8535534, 0.5, 0.1464466, 0.0)),
        ("cosine_to_tenth", (1.0, 0.8681981, 0.55, 0.2318019, 0.1)),
    ],
)
def test_values_at_quarters_of_the_horizon(name, values):
    assert [factor(name, t) for t in (0, 10, 20, 30, 40)] == pytest.approx(values, abs=1e-6)
    assert factor(name, 90) == factor(name, 40), "past the horizon"


def test_multi_step_falls_at_a_half_and_at_three_quarters():
    assert [factor("multi_step", t) for t in (19, 20, 29, 30)] == pytest.approx([1.0, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("name", "own"), [("cosine", Schedule(0.0, 0.0)), ("cosine_to_tenth", Schedule(0.0, 0.1)), ("linear", Schedule(0.0, 0.0, "linear"))]
)
def test_those_that_learners_have_are_equal(name, own):
    for t in (0, 7, 39, 40, 50):
        assert factor(name, t) == pytest.approx(float(schedule_factor(own, torch.tensor(t), HORIZON)), abs=1e-6)


def test_rows_under_different_schedules_are_the_runs_of_their_own_learners():
    family = tasks.get("quadratic")
    task = family.build(family.sample("5x5-none", 1, (30, 30)))
    chosen = ["linear", "constant", "cosine_to_tenth", "cosine"]
    owns = [Schedule(0.0, 0.0, "linear"), Schedule(), Schedule(0.0, 0.1), Schedule(0.0, 0.0)]
    theta = {"lr": torch.full((4,), 0.03), "schedule": torch.tensor([GRID_SCHEDULES.index(name) for name in chosen])}
    trace = inner.run(ScheduleByNumber(), theta, [task] * 4, [9] * 4, 30, eval_every=10, theta_stacked=True)
    for i, own in enumerate(owns):
        alone = inner.run(GradientLearner(get_rule("adamw", lr=0.03), own), {}, [task], [9], 30, eval_every=10)
        assert torch.allclose(trace.eval_raw[:, i], alone.eval_raw[:, 0], rtol=1e-4), chosen[i]


def test_it_starts_as_the_rule_does():
    theta = ScheduleByNumber().init_theta(0)
    assert (theta["lr"].item(), theta["schedule"].item()) == (pytest.approx(1e-3), GRID_SCHEDULES.index("constant"))
    family = tasks.get("digits_mlp")
    task = family.build(family.sample("16-tanh-b32", 1, (5, 5)))
    one, two = (inner.run(learner, theta, [task], [1], 5) for learner, theta in ((ScheduleByNumber(), theta), (learners.get("adamw"), {})))
    assert torch.allclose(one.loss, two.loss, rtol=1e-6)
