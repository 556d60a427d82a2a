"""Physics-informed nets: the known solution solves the equation, zero is one, boundaries hold, small residuals mean small errors."""

import math

import pytest
import torch
from torch.func import grad, vmap

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import TaskError
from metaopt.tasks.models.jets import JET_ACTIVATIONS
from metaopt.tasks.task import Task, TaskSpec

FAMILY = tasks.get("physics_informed")
TEMPLATES = FAMILY.templates("meta_test")
KEY, T0 = seeds.key("run"), torch.tensor(0)


def task_of(template: str, seed: int = 0, horizon: int = 100, dtype: torch.dtype = torch.float64) -> Task:
    return FAMILY.build(FAMILY.sample(template, seed, (horizon, horizon))).to(dtype=dtype)


def derivatives(function, x):
    return vmap(function)(x), vmap(grad(function))(x), vmap(grad(grad(function)))(x)


def test_it_has_test_templates_only_and_offers_gradients_only() -> None:
    assert [len(FAMILY.templates(split)) for split in tasks.SPLITS] == [0, 0, 3]
    assert FAMILY.offers == ()
    assert {task_of(template).program.equation for template in TEMPLATES} == {"poisson", "burgers"}
    assert all(task_of(template).program.activation in JET_ACTIVATIONS for template in TEMPLATES)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_solution_and_the_unknown_know_their_derivatives(template: str) -> None:
    task = task_of(template)
    p, a, params = task.program, task.numbers["amplitudes"], task.init(KEY)
    x = task.batch(KEY, T0)["x"]

    def sines(point):
        return sum(a[k - 1] * torch.sin(k * math.pi * point) for k in (1, 2, 3))

    def net(point):
        return point * (1.0 - point) * p.net.apply(params, (2.0 * point - 1.0).reshape(1, 1)).squeeze()

    for found, function in ((p.solution(task.numbers, x), sines), (p.unknown(params, x), net)):
        for one, want in zip(found, derivatives(function, x), strict=True):
            torch.testing.assert_close(one, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("template", TEMPLATES)
def test_boundary_values_hold_whatever_the_weights(template: str) -> None:
    task, ends = task_of(template), torch.tensor([0.0, 1.0], dtype=torch.float64)
    params = {name: 3.0 + value for name, value in task.init(KEY).items()}
    torch.testing.assert_close(task.program.unknown(params, ends)[0], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(task.program.solution(task.numbers, ends)[0], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("template", TEMPLATES)
def test_zero_has_loss_one_on_the_grid_and_the_residual_written_out(template: str) -> None:
    task = task_of(template)
    zero = {name: torch.zeros_like(value) for name, value in task.init(KEY).items()}
    heldout = task.heldout(KEY, T0)
    assert float(task.normalise(task.loss(zero, heldout))) == pytest.approx(1.0, abs=1e-6)  # numbers went through float32
    params, x = task.init(KEY), heldout["x"]
    (u, u1, u2), (v, v1, v2) = task.program.unknown(params, x), task.program.solution(task.numbers, x)
    left = [-u2, -v2] if task.program.equation == "poisson" else [u * u1 - 0.1 * u2, v * v1 - 0.1 * v2]
    assert float(task.loss(params, heldout)) == pytest.approx(float((left[0] - left[1]).square().mean() / task.numbers["reference"]))


def test_the_reference_of_poissons_equation_in_closed_form() -> None:
    """The mean square of f = sum a_k (k pi)^2 sin(k pi x) is half the sum of the squared coefficients."""
    numbers = task_of("poisson-width24-depth2-tanh-batch32").numbers
    coefficients = numbers["amplitudes"] * (math.pi * torch.arange(1, 4)) ** 2
    assert float(numbers["reference"]) == pytest.approx(float(0.5 * coefficients.square().sum()), rel=1e-6)


def test_points_are_drawn_afresh_and_held_out_ones_stay() -> None:
    task = task_of(TEMPLATES[0])
    one, two = (task.batch(KEY, torch.tensor(t))["x"] for t in (0, 1))
    assert not torch.equal(one, two)
    assert float(torch.cat([one, two]).min()) >= 0.0
    assert float(torch.cat([one, two]).max()) < 1.0
    assert torch.equal(task.heldout(KEY, T0)["x"], task.heldout(seeds.key("other"), torch.tensor(9))["x"])
    assert not torch.equal(task.numbers["amplitudes"], task_of(TEMPLATES[0], seed=1).numbers["amplitudes"])


@pytest.mark.parametrize("template", ["poisson-width24-depth2-tanh-batch32", "burgers-width32-depth2-tanh-batch48"])
def test_adam_finds_the_solution_and_the_residual_bounds_the_error(template: str) -> None:
    """For -u'' = f the error of u is at most the residual over pi^2, the smallest eigenvalue, in the mean square."""
    task = task_of(template, horizon=400, dtype=torch.float32)
    trace = inner.run(learners.get("adam", schedule="warmup_cosine"), {"lr": torch.tensor(3e-2)}, [task], [0], 400, eval_every=400)
    assert float(trace.eval_loss[-1, 0]) < 0.01 < 0.5 < float(trace.eval_loss[0, 0])
    params = {name: value[0].double() for name, value in trace.carry["params"].items()}
    fine = task.to(dtype=torch.float64)
    error = float(fine.program.error(fine.numbers, params))
    assert error < 0.05
    if fine.program.equation == "poisson":
        x = fine.heldout(KEY, T0)["x"]
        residual = math.sqrt(float(fine.loss(params, {"x": x}) * fine.numbers["reference"]))
        size = float(fine.program.solution(fine.numbers, x)[0].square().mean().sqrt())
        assert error * size <= 1.01 * residual / math.pi**2


def test_unknown_templates_are_refused() -> None:
    with pytest.raises(TaskError, match=r"no template 'heat'.*poisson-width24"):
        FAMILY.build(TaskSpec("physics_informed", "heat", "meta_test", {"init_scale": 1.0, "seed": 0}, 10))
