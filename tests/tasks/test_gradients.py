"""A task's gradients: exact by default, a program's own if it has any; learners carry what those need."""

from dataclasses import dataclass, replace

import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.tasks.families.quadratic import Quadratic


def quadratic():
    family = tasks.get("quadratic")
    return family.build(family.sample("8x4-minimum", 0, (20, 20)))


@dataclass(frozen=True)
class Alternating(Quadratic):
    """The gradient times +1, -2, +3, ...: a state that changes every step."""

    def gradient_state(self, numbers, params):
        return {"factor": torch.ones_like(numbers["noise"])}

    def gradients(self, numbers, params, batch, state):
        grads, loss = torch.func.grad_and_value(lambda p: self.loss(numbers, p, batch))(params)
        factor = state["factor"]
        return {k: factor * g for k, g in grads.items()}, loss, {"factor": -(factor.abs() + 1) * factor.sign()}


def test_the_default_is_the_exact_gradient_and_no_state() -> None:
    task, key = quadratic(), seeds.key("run")
    params, batch = task.init(key), task.batch(key, torch.tensor(0))
    grads, loss, state = task.gradients(params, batch, {})
    exact, value = torch.func.grad_and_value(task.loss)(params, batch)
    assert torch.equal(grads["x"], exact["x"])
    assert torch.equal(loss, value)
    assert state == task.gradient_state(params) == {}
    carry = learners.get("adam").init({}, task, key)
    assert "gradient_state" not in carry
    assert "gradient_state" not in learners.get("adam").advance({}, task, carry, batch)[0]


def test_a_program_with_gradients_of_its_own_is_followed_step_by_step() -> None:
    plain, key = quadratic().to(dtype=torch.float64), seeds.key("run")
    task = replace(plain, program=Alternating(8, 4, "minimum"))
    learner = learners.get("sgd", lr=0.01)
    carry, x = learner.init({}, task, key), plain.init(key)["x"]
    for t, factor in enumerate((1.0, -2.0, 3.0, -4.0)):
        batch = plain.batch(key, torch.tensor(t))
        exact, value = torch.func.grad_and_value(plain.loss)({"x": x}, batch)
        carry, record = learner.advance({}, task, carry, batch)
        torch.testing.assert_close(record.loss, value)
        x = x - 0.01 * factor * exact["x"]
        torch.testing.assert_close(carry["params"]["x"], x, rtol=1e-12, atol=1e-12)
    assert float(carry["gradient_state"]["factor"]) == 5.0


def test_runs_of_several_particles_keep_their_states_apart() -> None:
    task = replace(quadratic(), program=Alternating(8, 4, "minimum"))
    learner = learners.get("sgd", lr=0.01)
    both = inner.run(learner, {}, [task, task], [1, 2], 5)
    alone = inner.run(learner, {}, [task], [2], 5)
    torch.testing.assert_close(both.loss[:, 1], alone.loss[:, 0], rtol=1e-5, atol=0)
    assert both.carry["gradient_state"]["factor"].tolist() == [-6.0, -6.0]
