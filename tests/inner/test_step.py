"""One compiled step a bucket: as many buckets as there are, and none is compiled again for another task, run or window."""

import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils._pytree import tree_leaves

from metaopt import inner, learners, tasks
from metaopt.inner.particles import Pairs
from metaopt.inner.step import fresh_carries
from metaopt.tasks.augmentations import DelayedGradients, RandomDirections, ReducedBatch, Reparametrisation
from metaopt.tasks.families.quadratic import QuadraticFamily
from metaopt.tasks.source import TaskSource
from metaopt.tasks.task import stack_tasks

compiler = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def bowl(rows: int, seed: int):
    family = QuadraticFamily({"meta_train": {"bowl": (rows, 1, "minimum")}})
    return family.build(family.sample("bowl", seed, (5, 50)))


@pytest.mark.slow
@compiler
def test_every_bucket_is_compiled_once_however_many_there_are() -> None:
    learner, before = learners.get("sgd", lr=1e-3), graphs()
    for rows in range(31, 43):  # more than the eight versions that torch's compiler allows one function
        inner.run(learner, {}, [bowl(rows, 0)] * 3, [0, 1, 2], 3, compile=True)
    assert graphs() == before + 12
    for rows in range(31, 43):
        several = inner.run(learner, {}, [bowl(rows, seed) for seed in (1, 2, 3)], [4, 5, 6], 3, compile=True)
        eager = inner.run(learner, {}, [bowl(rows, seed) for seed in (1, 2, 3)], [4, 5, 6], 3)
        torch.testing.assert_close(several.loss, eager.loss, rtol=1e-4, atol=1e-5)
    assert graphs() == before + 12


@pytest.mark.slow
@compiler
def test_new_tasks_of_a_known_bucket_never_compile_again() -> None:
    """Horizons, restarts and strengths of augmentations are numbers; only another shape or another static choice is another program."""
    augmentations = (ReducedBatch(), Reparametrisation(), RandomDirections(), DelayedGradients())
    source = TaskSource(tasks.get("digits_mlp"), "16-tanh-b32", (3, 30), 0, augmentations)
    learner = learners.get("learnable_adam")
    theta = {name: torch.stack([value] * 4) for name, value in learner.init_theta(0).items()}
    before = graphs()
    pairs = Pairs(learner, source, 2, compiled=True)
    pairs.advance(theta, 5)
    assert graphs() == before + 1
    for window in (7, 33, 12):
        pairs.advance(theta, window)
    assert min(pairs.episode) >= 2
    assert graphs() == before + 1
    other = Pairs(learner, TaskSource(tasks.get("digits_mlp"), "16-tanh-b32", (100, 1000), 7, augmentations), 2, compiled=True)
    other.advance({name: value + 0.01 for name, value in theta.items()}, 9)
    assert graphs() == before + 1


def test_fresh_carries_are_laid_out_like_those_that_follow() -> None:
    for count in (1, 3):
        stacked = stack_tasks([bowl(5, seed) for seed in range(count)])
        carry = fresh_carries(learners.get("adam"), {}, stacked, torch.arange(count), False)
        for leaf in tree_leaves(carry):
            assert leaf.stride() == torch.empty(leaf.shape).stride()
        assert carry["t"].tolist() == [0] * count
