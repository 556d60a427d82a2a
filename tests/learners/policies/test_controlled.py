"""Controlled runs on models whose tensors have steps of their own."""

import math

import pytest
import torch

from metaopt import seeds, tasks
from metaopt.learners.policies.controlled import INNER, ControlledLearner, forget_steps
from metaopt.learners.policies.knobs import start_values
from metaopt.learners.policies.unitless import STATISTICS

RELATIVE_STEP = STATISTICS.index("log_adam_update_norm_over_param_norm")


class Unscaled:
    """A task whose tensors all have the steps of the rate."""

    step_scales = {}  # noqa: RUF012

    def __init__(self, task):
        self.task = task

    def __getattr__(self, name):
        return getattr(self.task, name)


@pytest.mark.parametrize("inner", INNER)
def test_step_scales_are_factors_of_the_steps_and_of_what_adamw_calls_its_rate(inner):
    family = tasks.get("digits_mlp_mu")
    built = (tasks.build(family.sample(template, 0, (16, 16))) for template in family.templates("meta_train"))
    task = next(one for one in built if one.step_scales)
    learner, theta = ControlledLearner(inner, measure=True), {"values": start_values(lr=0.01)}
    carry, batch = learner.init(theta, task, seeds.key("run")), task.batch(seeds.key("batch"), torch.tensor(0))
    carry = forget_steps(learner.advance(theta, task, carry, batch)[0])  # the last layer begins with zeros: no gradient reaches the others
    scaled, plain = (learner.advance(theta, one, carry, batch)[0] for one in (task, Unscaled(task)))
    for name, value in carry["params"].items():
        move, whole = scaled["params"][name] - value, plain["params"][name] - value
        assert whole.abs().max() > 1e-5
        assert torch.allclose(move, task.step_scales.get(name, 1.0) * whole, rtol=1e-3, atol=1e-7)
    told = scaled["seen"]["mean"] - plain["seen"]["mean"]
    factors = math.fsum(math.log(scale) for scale in task.step_scales.values()) / len(carry["params"])
    assert float(told[RELATIVE_STEP]) == pytest.approx(factors if inner == "adamw" else 0.0, abs=1e-4)
