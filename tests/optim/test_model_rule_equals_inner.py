"""One definition, two engines: the drop-in optimizer of a rule that sees all tensors retraces the inner run, losses and horizon too."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaopt import seeds, tasks
from metaopt.artifacts import Artifact, new_card
from metaopt.inner import run
from metaopt.inner.step import fresh_carries
from metaopt.learners import ModelRuleLearner
from metaopt.learners.update_rules import MODEL_RULES, get_model_rule
from metaopt.optim import LearnedOptimizer
from metaopt.tasks.task import SPLITS, Task, stack_tasks
from tests.learners.model_rules import Toy

STEPS, SEED = 12, 7
BATCHES = 1  # the branch of a run's key that its batches are drawn from
SMALL: dict[str, dict[str, Any]] = {
    "velo": {"lstm_hidden": 8, "mixture": 4},
    "celo": {"schedule_hidden": 8},
    "rnn_mlp": {"lstm_hidden": 8, "mlp_hidden": 8},
}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODEL_RULES, "_entries", {**MODEL_RULES, "toy": Toy})


def sample(family: str, dtype: torch.dtype) -> Task:
    source = tasks.get(family)
    template = next(name for split in SPLITS for name in source.templates(split))
    return source.build(source.sample(template, 3, (STEPS, STEPS))).to(dtype=dtype)


def drop_in(task: Task, artifact: Artifact, start: dict[str, Tensor], saved_at: int = -1) -> tuple[list[float], dict[str, Tensor]]:
    """Train as a user would, in a process that is saved and begun again before step `saved_at`; return losses and final parameters."""
    params = {name: nn.Parameter(value[0].clone()) for name, value in start.items()}
    optimizer = LearnedOptimizer(params.items(), artifact, total_steps=STEPS, weight_decay=0.01)
    key, losses = seeds.fold_in(torch.tensor(SEED), BATCHES), []
    for t in range(STEPS):
        if t == saved_at:
            kept = copy.deepcopy(optimizer.state_dict())
            params = {name: nn.Parameter(param.detach().clone()) for name, param in params.items()}
            optimizer = LearnedOptimizer(params.items(), artifact, total_steps=STEPS, weight_decay=0.01)
            optimizer.load_state_dict(kept)
        optimizer.zero_grad()
        loss = task.loss(params, task.batch(key, torch.tensor(t)))  # type: ignore[arg-type]
        loss.backward()
        optimizer.step(loss=loss)
        losses.append(float(loss.detach()))
    return losses, {name: param.detach() for name, param in params.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("rule", "family"), [("toy", "quadratic"), ("toy", "digits_mlp"), *((name, "digits_mlp") for name in MODEL_RULES)])
def test_drop_in_retraces_the_inner_run_also_over_a_save(rule: str, family: str, dtype: torch.dtype, tolerance: float) -> None:
    task, options = sample(family, dtype), SMALL.get(rule, {})
    learner = ModelRuleLearner(get_model_rule(rule, **options), weight_decay=0.01)
    theta = learner.init_theta(0)
    cast = {key: value.to(dtype) for key, value in theta.items()}
    trace = run(learner, cast, [task], [SEED], STEPS)
    start = fresh_carries(learner, cast, stack_tasks([task]), torch.tensor([SEED]), theta_stacked=False)["params"]
    artifact = Artifact(new_card("twin", rule, options=options), theta)
    losses, params = drop_in(task, artifact, start)
    torch.testing.assert_close(torch.tensor(losses, dtype=dtype), trace.loss[:, 0], rtol=10 * tolerance, atol=10 * tolerance)
    again, resumed = drop_in(task, artifact, start, saved_at=STEPS // 2)
    assert again == losses, "bit for bit"
    for name, value in params.items():
        assert torch.equal(value, resumed[name])
        torch.testing.assert_close(
            value, trace.carry["params"][name][0], rtol=10 * tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
