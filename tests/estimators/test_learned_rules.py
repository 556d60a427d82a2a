"""Every learned rule under every estimator that differentiates it: float32, vectorised, finite."""

import pytest
import torch

from metaopt import learners, tasks
from metaopt.estimators import ESTIMATORS, flatten
from metaopt.learners.update_rules import CLASSIC, RULES
from metaopt.tasks.source import TaskSource

OPTIONS = {"forward_mode": {"tangents": 1}, "uoro": {}, "truncated_backprop": {}}


@pytest.mark.parametrize("estimator", OPTIONS)
@pytest.mark.parametrize("rule", [name for name in RULES if name not in CLASSIC])
def test_a_learned_rule_can_be_differentiated(rule: str, estimator: str) -> None:
    learner, family = learners.get(rule), tasks.get("digits_mlp")
    episodes = TaskSource(family, family.templates("meta_valid")[1], (6, 6), seed=0)
    theta = learner.init_theta(0)
    found = ESTIMATORS[estimator](window=3, **OPTIONS[estimator]).build(learner, episodes, pairs=1, seed=0)
    for step in range(2):
        grad = found.estimate(theta, step).grad
        assert {name: (value.shape, value.dtype) for name, value in grad.items()} == {name: (v.shape, v.dtype) for name, v in theta.items()}
        assert bool(torch.isfinite(flatten(grad)).all())
    assert bool((flatten(grad) != 0).any())
