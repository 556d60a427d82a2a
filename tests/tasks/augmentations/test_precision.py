"""Half precision inside the loss, and nowhere else."""

from dataclasses import dataclass, replace

import pytest
import torch

from metaopt import inner, learners, seeds
from metaopt.errors import TaskError
from metaopt.tasks.augmentations import Bfloat16, ReducedBatch, augment
from metaopt.tasks.families.quadratic import Quadratic
from tests.tasks.augmentations.bench import bowl, digits

KEY = seeds.key("run")


def test_the_loss_is_close_to_that_of_single_precision_and_differs() -> None:
    plain = digits(dtype=torch.float32)
    changed = Bfloat16().apply(plain, 0)
    params, batch = plain.init(KEY), plain.batch(KEY, torch.tensor(0))
    exact, loss = torch.func.grad_and_value(plain.loss)(params, batch)
    grads, rounded, state = changed.gradients(params, batch, {})
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, loss)
    torch.testing.assert_close(rounded, loss, rtol=2e-2, atol=0)
    assert torch.equal(rounded, rounded.to(torch.bfloat16).float())
    assert state == {}
    for name, grad in grads.items():
        assert grad.dtype == torch.float32
        assert not torch.equal(grad, exact[name])
        assert float((grad - exact[name]).norm() / exact[name].norm()) < 0.03
    assert changed.normalise(rounded).dtype == torch.float32
    assert torch.equal(changed.normalise(loss), plain.normalise(loss))  # not rounded


def test_weights_and_what_a_rule_keeps_stay_in_single_precision() -> None:
    task = Bfloat16().apply(digits(dtype=torch.float32), 0)
    trace = inner.run(learners.get("adam", lr=1e-5), {}, [task], [0], 30)
    kept = [*trace.carry["params"].values(), *(v for state in trace.carry["state"].values() for v in state.values())]
    assert {value.dtype for value in kept} == {torch.float32}
    # steps of 1e-5 are far below bfloat16's resolution, yet add up
    start = task.init(seeds.fold_in(torch.tensor(0), 0))
    moved = torch.cat([(trace.carry["params"][name][0] - start[name]).reshape(-1).abs() for name in start])
    assert 1e-4 < float(moved.median()) < 4e-4


def test_a_run_goes_about_as_in_single_precision() -> None:
    plain = digits(dtype=torch.float32)
    learner = learners.get("adam", lr=0.01)
    one, two = (inner.run(learner, {}, [task], [0], 60).loss for task in (plain, Bfloat16().apply(plain, 0)))
    assert float((one - two).abs().max()) > 0
    assert float(two[-10:].mean()) == pytest.approx(float(one[-10:].mean()), rel=0.1)


@dataclass(frozen=True)
class Doubled(Quadratic):
    def gradients(self, numbers, params, batch, state):
        return {"x": 2 * params["x"]}, self.loss(numbers, params, batch), state


def test_a_program_with_gradients_of_its_own_is_refused() -> None:
    task = replace(bowl(), program=Doubled(8, 4, "minimum"))
    assert not Bfloat16().fits(task)
    with pytest.raises(TaskError, match="bfloat16 needs a program that takes the gradient of its loss, Doubled does not"):
        Bfloat16().apply(task, 0)
    reduced = ReducedBatch().apply(digits(), 0)
    assert Bfloat16().fits(reduced)
    both = augment(digits(dtype=torch.float32), ["bfloat16", "reduced_batch"], 0)
    batch = both.batch(KEY, torch.tensor(0))
    assert batch["x"].dtype == torch.float32
    assert torch.isfinite(both.gradients(both.init(KEY), batch, {})[1])
