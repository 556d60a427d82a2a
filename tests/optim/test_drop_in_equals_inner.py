"""One definition, two engines: a drop-in optimizer retraces the inner run that meta-training would make."""

import pytest
import torch
from torch import nn

from metaopt import learners, seeds, tasks
from metaopt.artifacts import Artifact, new_card
from metaopt.inner import run
from metaopt.inner.step import fresh_carries
from metaopt.learners.update_rules import RULES
from metaopt.optim import LearnedOptimizer
from metaopt.tasks.task import SPLITS, Task, stack_tasks

STEPS, SEED = 15, 7
BATCHES = 1  # the branch of a run's key that its batches are drawn from


def sample(family: str, dtype: torch.dtype) -> Task:
    source = tasks.get(family)
    template = next(name for split in SPLITS for name in source.templates(split))
    return source.build(source.sample(template, 3, (STEPS, STEPS))).to(dtype=dtype)


def drop_in(
    task: Task, artifact: Artifact, start: dict[str, torch.Tensor], **options: object
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train the task with the drop-in class as a user would; return losses and final parameters."""
    params = {name: nn.Parameter(value[0].clone()) for name, value in start.items()}
    optimizer = LearnedOptimizer(params.values(), artifact, **options)  # type: ignore[arg-type]
    key = seeds.fold_in(torch.tensor(SEED), BATCHES)
    losses = []
    for t in range(STEPS):
        optimizer.zero_grad()
        loss = task.loss(params, task.batch(key, torch.tensor(t)))  # type: ignore[arg-type]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, {name: param.detach() for name, param in params.items()}


RULES_AND_FAMILIES = [(rule, family) for rule in RULES for family in ("quadratic", "digits_mlp")]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("rule", "family"), [*RULES_AND_FAMILIES, ("mlp", "digits_conv"), ("celo2_base", "digits_conv")])
def test_drop_in_retraces_the_inner_run(rule: str, family: str, dtype: torch.dtype, tolerance: float) -> None:
    task = sample(family, dtype)
    learner = learners.get(rule, schedule="warmup_cosine", weight_decay=0.01)
    theta = learner.init_theta(0)
    trace = run(learner, {key: value.to(dtype) for key, value in theta.items()}, [task], [SEED], STEPS)
    start = fresh_carries(learner, theta, stack_tasks([task]), torch.tensor([SEED]), theta_stacked=False)["params"]
    schedule = {"warmup_frac": learner.schedule.warmup_frac, "final_frac": learner.schedule.final_frac}
    artifact = Artifact(new_card("twin", rule, step={"default_schedule": schedule}), theta)
    losses, params = drop_in(task, artifact, start, total_steps=STEPS, weight_decay=0.01)
    torch.testing.assert_close(torch.tensor(losses, dtype=dtype), trace.loss[:, 0], rtol=10 * tolerance, atol=10 * tolerance)
    for name, value in params.items():
        torch.testing.assert_close(
            value, trace.carry["params"][name][0], rtol=10 * tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
