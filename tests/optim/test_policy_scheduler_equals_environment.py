"""A policy decides in a user's loop what it decided in the environment it was trained in: same inputs, same choices, same weights."""

import pytest
import torch

from metaopt import optim, seeds, tasks
from metaopt.artifacts.policy import load_policy
from metaopt.inner.step import training_batches
from metaopt.learners.policies.network import greedy
from metaopt.tasks.halves import DECIDING, half_of
from metaopt.tasks.task import stack_tasks
from metaopt_envs.group import Group, inner_start
from metaopt_envs.settings import Bucket, Settings
from tests.optim.policies import policy

HORIZON, DECISIONS, SEED = 48, 6, 77
BUCKET = Bucket("digits_mlp", "16-tanh-b32", HORIZON, DECISIONS, (3,))
TRAINED = {"knobs": ("lr", "weight_decay"), "registers": False, "hidden": 16}


def in_environment(artifact, inner, with_eval):
    """The inputs, the knobs and the final weights of one run that the policy controls in the environment."""
    network = load_policy(artifact)
    settings = Settings(knobs=TRAINED["knobs"], registers=False, eval_missing=float(not with_eval), knob_missing=0.0, highest_lr=1.0)
    bucket = Bucket(BUCKET.family, BUCKET.template, HORIZON, DECISIONS, BUCKET.draws, inner)
    group = Group(bucket, settings, 0, 1, given=inner_start(inner), run_seeds=[SEED])
    seen, state, inputs, values = group.begin(), network.initial_state((1,)), [], []
    while not seen.ended.all():
        inputs.append(seen.pi[0])
        logits, state = network.step(seen.pi, state)
        seen = group.act(greedy(logits, network.nvec))
        values.append(group.values[0])
    weights = {name: value[0] for name, value in group.inner.carry["params"].items()}
    return torch.stack(inputs), torch.stack(values), weights


def in_a_loop(artifact, inner, with_eval):
    """The same of a plain loop in torch with the scheduler."""
    task = tasks.build(BUCKET.specs()[0])
    key = torch.tensor(SEED)
    params = {name: value.clone().requires_grad_() for name, value in task.init(seeds.fold_in(key, 0)).items()}
    optimizer = torch.optim.AdamW(params.values(), lr=1e-3) if inner == "adamw" else optim.UnitlessAdam(params.values())
    batches = training_batches(stack_tasks([task]), key[None], torch.zeros(1, dtype=torch.int64), HORIZON)
    heldout = half_of(task.program, task.heldout(key, torch.tensor(0)), DECIDING)
    eval_fn = (lambda: task.loss(params, heldout)) if with_eval else None
    scheduler = optim.PolicyScheduler(optimizer, artifact, HORIZON, DECISIONS, eval_fn=eval_fn, guard=False)
    for t in range(HORIZON):
        loss = task.loss(params, {name: value[t, 0] for name, value in batches.items()})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step(train_loss=loss.detach())
    return scheduler.decision_log, {name: value.detach() for name, value in params.items()}


@pytest.mark.parametrize("with_eval", [True, False])
@pytest.mark.parametrize("inner", ["adamw", "unitless_adam"])
def test_scheduler_decides_as_in_training(inner, with_eval):
    artifact = policy(seed=4, **TRAINED)
    inputs, values, weights = in_environment(artifact, inner, with_eval)
    log, found = in_a_loop(artifact, inner, with_eval)
    assert len(log) == DECISIONS
    assert len({tuple(row.tolist()) for row in values}) > 2  # it does turn knobs
    for decision, expected_inputs, expected_values in zip(log, inputs, values, strict=True):
        assert decision["values"]["lr"] == pytest.approx(float(expected_values[0]), rel=1e-6)
        assert decision["values"]["weight_decay"] == pytest.approx(float(expected_values[1]), rel=1e-6)
        if "inputs" in decision:
            assert torch.allclose(torch.as_tensor(decision["inputs"]), expected_inputs, rtol=1e-2, atol=2e-3)
    for name, value in weights.items():
        assert torch.allclose(found[name], value, rtol=1e-3, atol=1e-5)
