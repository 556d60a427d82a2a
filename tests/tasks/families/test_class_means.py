"""Gaussian classes: the contract of a family, statistics of examples, fresh problems, what online SGD reaches on them."""

import math
from dataclasses import replace

import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import TaskError
from metaopt.tasks.families.class_means import CLASS_MEANS, ClassMeans
from metaopt.tasks.task import Task
from metaopt.testing import check_family

TEMPLATE = "features8-classes2-batch1"


def made(template: str = TEMPLATE, seed: int = 0) -> Task:
    return CLASS_MEANS.build(CLASS_MEANS.sample(template, seed, (24, 24)))


def test_it_keeps_the_contract_of_a_family() -> None:
    check_family(CLASS_MEANS, templates_per_split=1)
    assert tasks.get("class_means") is CLASS_MEANS


@pytest.mark.parametrize("template", [TEMPLATE, "features10-classes4-batch4-mixed"])
def test_examples_have_unit_mean_square_and_their_class_means(template: str) -> None:
    task = made(template)
    numbers, program = task.numbers, task.program
    batches = torch.func.vmap(lambda t: task.batch(seeds.key(0), t))(torch.arange(2000))
    x, y = batches["x"].flatten(0, 1), batches["y"].flatten()
    assert float(x.square().mean()) == pytest.approx(1.0, rel=0.1)
    assert isinstance(program, ClassMeans)
    for c in range(program.classes):
        of_class = x[y == c]
        assert len(of_class) == pytest.approx(len(x) / program.classes, rel=0.15)
        assert torch.allclose(of_class.mean(0), numbers["means"][c] @ numbers["mix"], atol=0.25)
    noise = x - (numbers["means"] @ numbers["mix"])[y]
    assert torch.allclose(noise.T @ noise / len(x), numbers["mix"].T @ numbers["mix"], atol=0.3)


def test_every_seed_is_a_fresh_problem_and_every_step_a_fresh_batch() -> None:
    one, two = made(seed=0), made(seed=1)
    assert not torch.equal(one.numbers["means"], two.numbers["means"])
    t, u = torch.tensor(0), torch.tensor(1)
    assert not torch.equal(one.batch(seeds.key(0), t)["x"], one.batch(seeds.key(0), u)["x"])
    assert torch.equal(one.heldout(seeds.key(0), t)["x"], one.heldout(seeds.key(0), u)["x"])
    seen = torch.cat([one.batch(seeds.key(0), torch.tensor(t))["x"] for t in range(50)])
    assert not (one.heldout(seeds.key(0), t)["x"][:, None] == seen).all(-1).any()


def test_splits_differ_in_features_classes_or_batches() -> None:
    owner: dict[tuple[object, ...], str] = {}
    for split in tasks.SPLITS:
        for template in CLASS_MEANS.templates(split):
            program = CLASS_MEANS.grid[split][template]
            assert owner.setdefault((program.features, program.classes, program.batch_size), split) == split
    assert {program.classes for program in CLASS_MEANS.grid["meta_test"].values()} > {5}


def test_online_sgd_gets_well_below_a_guess() -> None:
    """Softmax regression, one example a step, the best of three rates, 32 tasks: the mean loss of the last eight predictions."""
    rates = {"lr": torch.tensor([0.1, 0.3, 1.0]).repeat_interleave(32)}
    trace = inner.run(learners.get("sgd"), rates, [made(seed=i) for i in range(32)] * 3, [*range(32)] * 3, 24, theta_stacked=True)
    best = min(trace.loss[-8:].mean(0).reshape(3, 32).mean(1))
    assert 0.05 < float(best) < 0.35 < math.log(2.0)


def test_nothing_to_tell_apart_is_refused() -> None:
    with pytest.raises(TaskError, match="2 classes and batches of 1, got 8 features, 1 classes"):
        ClassMeans(8, 1, 1)
    unknown = replace(CLASS_MEANS.sample(TEMPLATE, 0, (5, 5)), template="x")
    with pytest.raises(TaskError, match="class_means has no template 'x' in meta_train; it has features8"):
        CLASS_MEANS.build(unknown)
