"""Reduced batches: the gradient of the smaller batch in tensors of the same shape."""

from dataclasses import dataclass, replace

import pytest
import torch

from metaopt import inner, learners, seeds
from metaopt.errors import TaskError
from metaopt.tasks.augmentations import ReducedBatch
from metaopt.tasks.families.quadratic import Quadratic
from tests.tasks.augmentations.bench import bowl, digits, strength

KEY = seeds.key("run")


@pytest.mark.parametrize("kept", [1, 2, 8, 32])
def test_loss_and_gradient_are_those_of_the_first_rows(kept: int) -> None:
    plain = digits()
    changed = strength(plain, ReducedBatch(), kept)
    params, step = plain.init(KEY), torch.tensor(4)
    whole, reduced = plain.batch(KEY, step), changed.batch(KEY, step)
    assert all(reduced[name].shape == whole[name].shape for name in whole)
    part = {name: value[:kept] for name, value in whole.items()}
    exact, loss = torch.func.grad_and_value(plain.loss)(params, part)
    grads, loss_reduced, _ = changed.gradients(params, reduced, {})
    torch.testing.assert_close(loss_reduced, loss, rtol=1e-12, atol=0)
    for name in params:
        torch.testing.assert_close(grads[name], exact[name], rtol=1e-9, atol=1e-14)


def test_heldout_batches_stay_whole() -> None:
    plain = digits()
    changed = strength(plain, ReducedBatch(), 1)
    for name, value in plain.heldout(KEY, torch.tensor(0)).items():
        assert torch.equal(changed.heldout(KEY, torch.tensor(0))[name], value)


def test_the_rows_that_stay_divide_the_batch_and_cover_the_range() -> None:
    task = digits("64-relu-b32", torch.float32)
    kept = [int(ReducedBatch().apply(task, i).numbers["reduced_batch"]) for i in range(400)]
    assert set(kept) == {1, 2, 4, 8, 16, 32}
    # log-uniform on [0.01, 1]: what rounds to all 32 rows is above sqrt(1 / 2) of them
    assert abs(kept.count(32) / 400 - 0.346 / 4.605) < 0.05
    # 11.5 of 32 rows are nearer to 16 than to 8 in the logarithm
    assert int(ReducedBatch(fraction=(0.36, 0.36)).apply(task, 0).numbers["reduced_batch"]) == 16
    assert {int(ReducedBatch(fraction=(0.5, 0.5)).apply(task, i).numbers["reduced_batch"]) for i in range(9)} == {16}


def test_particles_with_other_fractions_share_a_run() -> None:
    plain = digits(dtype=torch.float32)
    group = [strength(plain, ReducedBatch(), kept) for kept in (1, 4, 32)]
    learner = learners.get("sgd", lr=0.1)
    together = inner.run(learner, {}, group, [0, 1, 2], 6).loss
    for i, task in enumerate(group):
        torch.testing.assert_close(together[:, i], inner.run(learner, {}, [task], [i], 6).loss[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[:, 2], inner.run(learner, {}, [plain], [2], 6).loss[:, 0], rtol=1e-4, atol=1e-5)


@dataclass(frozen=True)
class Ragged(Quadratic):
    def batch(self, numbers, shared, key, step):
        return {**super().batch(numbers, shared, key, step), "more": torch.ones(3)}


def test_a_vector_is_not_a_list_of_examples() -> None:
    assert ReducedBatch().fits(digits())
    for task in (bowl("none"), bowl("minimum"), bowl("gradient"), replace(bowl("none"), program=Ragged(10, 1, "none"))):
        assert not ReducedBatch().fits(task)
        with pytest.raises(TaskError, match=r"reduced_batch needs batches of two or more exchangeable rows, \w+ has none"):
            ReducedBatch().apply(task, 0)
