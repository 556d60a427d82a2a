"""What every registered family promises, by one table of checks; a new family is in them as soon as it is in the registry.

Fast tests look at the smallest template of a family, slow ones at all.
"""

import functools
import math

import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.tasks.task import Task
from metaopt.testing import FAMILY_CLAUSES, TASK_CLAUSES, check_family, check_task

FAMILIES = tasks.names()
RATES = (1e-3, 1e-2, 3e-2, 1e-1)
STEPS = 250  # of Adam with warm-up and cosine
TUNED = 0.35  # normalised loss that the best of the rates reaches
MARGIN = 0.4  # by which it is below the loss at initialisation
LONGER = dict.fromkeys(("digits_resnet", "digits_vit", "textures_mlp", "textures_conv", "mnist1d_mlp", "modular_arithmetic"), 500) | {
    "mnist1d_conv": 900
}

each_family = pytest.mark.parametrize("name", FAMILIES)
EVERY = [(name, split, template) for name in FAMILIES for split in tasks.SPLITS for template in tasks.get(name).templates(split)]


def task_of(name: str, template: str, seed: int = 0, horizon: int = 50) -> Task:
    family = tasks.get(name)
    return family.build(family.sample(template, seed, (horizon, horizon)))


def size(task: Task) -> int:
    return sum(value.numel() for value in task.init(seeds.key("size")).values())


@functools.cache
def smallest(name: str) -> str:
    """Return the template of a family with the fewest weights."""
    family = tasks.get(name)
    templates = [template for split in tasks.SPLITS for template in family.templates(split)]
    return min(templates, key=lambda template: size(task_of(name, template)))


def first_losses(name: str, template: str, count: int) -> list[float]:
    """Return normalised held-out losses at initialisation, each of a task and weights of their own."""
    losses = []
    for i in range(count):
        task, key = task_of(name, template, seed=i), seeds.key("first", i)
        losses.append(float(task.normalise(task.loss(task.init(key), task.heldout(key, torch.tensor(0))))))
    return losses


@each_family
def test_family_keeps_its_contract(name: str) -> None:
    assert check_family(tasks.get(name), only=FAMILY_CLAUSES) == tuple(FAMILY_CLAUSES)


@each_family
def test_smallest_task_keeps_its_contract(name: str) -> None:
    assert check_task(task_of(name, smallest(name)), skip=("learnable",)) == tuple(c for c in TASK_CLAUSES if c != "learnable")


@each_family
def test_particles_together_are_particles_alone(name: str) -> None:
    group = [task_of(name, smallest(name), seed) for seed in (1, 2, 3)]
    learner = learners.get("adam", lr=1e-3)
    together = inner.run(learner, {}, group, [4, 5, 6], 4, eval_every=4)
    for i in (0, 2):
        alone = inner.run(learner, {}, [group[i]], [4 + i], 4, eval_every=4)
        torch.testing.assert_close(together.loss[:, i], alone.loss[:, 0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.eval_loss[:, i], alone.eval_loss[:, 0], rtol=1e-4, atol=1e-5)


@each_family
def test_initialisation_is_near_one(name: str) -> None:
    losses = first_losses(name, smallest(name), 6)
    assert all(math.isfinite(loss) for loss in losses)
    assert 0.5 <= sum(losses) / len(losses) <= 2.0, losses


def tuned_adam(name: str, template: str, steps: int) -> tuple[float, float]:
    """Return normalised losses at initialisation and after Adam at the best rate that did not diverge.

    The latter is the held-out loss or the mean training loss over the last tenth, whichever is lower, as in the measurement of floors.
    """
    task = task_of(name, template, horizon=steps)
    count = len(RATES)
    learner = learners.get("adam", schedule="warmup_cosine")
    trace = inner.run(learner, {"lr": torch.tensor(RATES)}, [task] * count, [7] * count, steps, eval_every=steps, theta_stacked=True)
    first, last = trace.eval_loss
    tail = trace.normalised[-steps // 10 :].mean(0)
    best = int(torch.where(trace.diverged, torch.inf, last).argmin())
    return float(first[best]), float(torch.minimum(last, tail)[best])


@each_family
def test_tuned_adam_is_near_zero_and_learns_by_a_margin(name: str) -> None:
    first, tuned = tuned_adam(name, smallest(name), LONGER.get(name, STEPS))
    assert tuned <= TUNED
    assert tuned <= first - MARGIN


@pytest.mark.parametrize("name", [name for name in FAMILIES if len(tasks.get(name).templates("meta_train")) > 1])
def test_templates_differ_in_size_and_tasks_of_one_in_their_numbers(name: str) -> None:
    family = tasks.get(name)
    shapes = {
        tuple(value.shape for value in task_of(name, template).init(seeds.key("s")).values()) for template in family.templates("meta_train")
    }
    assert len(shapes) > 1
    one, two = (family.build(family.sample(smallest(name), seed, (10, 500))).numbers for seed in (0, 1))
    assert any(not torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "split", "template"), EVERY, ids=[f"{name}:{template}" for name, _, template in EVERY])
def test_every_template_begins_near_one_and_keeps_the_task_contract(name: str, split: str, template: str) -> None:
    assert tasks.split_of(tasks.get(name), template) == split
    losses = first_losses(name, template, 4)
    assert 0.3 <= sum(losses) / len(losses) <= 4.0, losses  # of a wide layer that is drawn by its fan out
    check_task(task_of(name, template), skip=("learnable",))  # small batches take more than its 60 steps


@pytest.mark.slow
@each_family
def test_the_largest_task_is_learned(name: str) -> None:
    family = tasks.get(name)
    templates = [template for split in tasks.SPLITS for template in family.templates(split)]
    largest = max(templates, key=lambda template: size(task_of(name, template)))
    first, tuned = tuned_adam(name, largest, STEPS)
    assert tuned <= 0.8 * first, largest
