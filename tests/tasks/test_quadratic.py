"""Quadratic bowls against their closed forms."""

import pytest
import torch
from torch.func import vmap

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import TaskError
from metaopt.tasks.task import TaskSpec

FAMILY = tasks.get("quadratic")
NOISES = ["10x1-none", "10x1-gradient", "8x4-minimum"]


def double(template: str, seed: int = 0):
    spec = FAMILY.sample(template, seed, (50, 50))
    return spec, FAMILY.build(spec).to(dtype=torch.float64)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("template", NOISES)
def test_spectrum_lies_where_the_spec_says(template: str, seed: int) -> None:
    spec, task = double(template, seed)
    hessian = task.numbers["hessian"]
    torch.testing.assert_close(hessian, hessian.T, rtol=1e-5, atol=1e-6)
    spectrum = torch.linalg.eigvalsh(hessian)
    top = spec.values["scale"]
    assert float(spectrum.min()) >= top / spec.values["condition"] * (1 - 1e-3)
    assert float(spectrum.max()) <= top * (1 + 1e-5)
    off_diagonal = hessian - hessian.diag().diag()
    assert float(off_diagonal.abs().max()) > 1e-3 * float(spectrum.max() - spectrum.min())  # rotated


@pytest.mark.parametrize("template", NOISES)
def test_loss_and_gradient_are_closed_forms(template: str) -> None:
    _, task = double(template)
    key, n = seeds.key("run"), task.numbers
    x = task.init(key)["x"]
    batch = task.batch(key, torch.tensor(3))
    noise = batch["noise"]
    error = x.reshape(-1) - n["minimum"]
    grad, loss = torch.func.grad_and_value(task.loss)({"x": x}, batch)
    want = {
        "10x1-none": n["hessian"] @ error,
        "10x1-gradient": n["hessian"] @ error + noise,
        "8x4-minimum": n["hessian"] @ (error - noise),
    }[template]
    hessian = (n["hessian"] + n["hessian"].T) / 2  # float32 numbers are symmetric to rounding only
    torch.testing.assert_close(grad["x"].reshape(-1), want, rtol=1e-5, atol=1e-5)
    shift = noise if template.endswith("minimum") else torch.zeros_like(noise)
    value = 0.5 * (error - shift) @ hessian @ (error - shift)
    value = value + noise @ error if template.endswith("gradient") else value
    torch.testing.assert_close(loss, value)


@pytest.mark.parametrize("template", NOISES)
def test_heldout_is_the_true_objective_with_loss_zero_at_its_minimum(template: str) -> None:
    _, task = double(template)
    heldout = task.heldout(seeds.key("run"), torch.tensor(9))
    assert not heldout["noise"].any()
    x = task.init(seeds.key("run"))["x"]
    best = {"x": task.numbers["minimum"].reshape(x.shape)}
    assert float(task.loss(best, heldout)) == 0.0
    assert not torch.func.grad(task.loss)(best, heldout)["x"].any()
    assert float(task.loss({"x": best["x"] + 0.1}, heldout)) > 0.0


@pytest.mark.parametrize("template", NOISES)
def test_initial_loss_is_one_in_expectation(template: str) -> None:
    _, task = double(template)
    keys = seeds.fold_in(seeds.key("many"), torch.arange(20_000))
    heldout = task.heldout(keys[0], torch.tensor(0))
    losses = vmap(lambda key: task.program.normalise(task.numbers, task.loss(task.init(key), heldout)))(keys)
    assert float(losses.mean()) == pytest.approx(1.0, abs=5 * float(losses.std()) / len(losses) ** 0.5)
    assert float(losses.std()) / len(losses) ** 0.5 < 0.01


@pytest.mark.parametrize("template", ["10x1-gradient", "8x4-minimum"])
def test_noise_has_the_declared_size_and_no_bias(template: str) -> None:
    spec, task = double(template)
    noise = vmap(lambda step: task.batch(seeds.key("run"), step)["noise"])(torch.arange(5000))
    std = spec.values["noise"] * (spec.values["scale"] if template.endswith("gradient") else 1.0)
    assert float(noise.std()) == pytest.approx(std, rel=0.02)
    assert float(noise.mean(0).abs().max()) < 4.5 * std / 5000**0.5


def test_newton_on_the_noise_free_bowl_solves_it_at_once() -> None:
    _, task = double("10x1-none")
    key = seeds.key("run")
    x, batch = task.init(key)["x"], task.batch(key, torch.tensor(0))
    step = torch.linalg.solve(task.numbers["hessian"], torch.func.grad(task.loss)({"x": x}, batch)["x"].reshape(-1))
    assert float(task.normalise(task.loss({"x": x - step.reshape(x.shape)}, batch))) < 1e-10


def test_sgd_follows_the_closed_form_trajectory() -> None:
    spec, task = double("10x1-none", seed=2)
    trace = inner.run(learners.get("sgd", lr=0.5 / spec.values["scale"]), {}, [task], [0], 30)
    values, vectors = torch.linalg.eigh(task.numbers["hessian"])
    x0 = task.init(seeds.fold_in(torch.tensor(0), 0))["x"].reshape(-1)
    error = vectors.T @ (x0 - task.numbers["minimum"])
    decay = (1 - 0.5 / spec.values["scale"] * values) ** torch.arange(30).unsqueeze(1)
    torch.testing.assert_close(trace.loss[:, 0], 0.5 * (values * (decay * error) ** 2).sum(1), rtol=1e-4, atol=1e-8)


def test_tuned_adam_learns_every_noise() -> None:
    for template in NOISES:
        bowls = [FAMILY.build(FAMILY.sample(template, seed, (150, 150))) for seed in range(4)]
        rates = torch.tensor([0.02, 0.1, 0.3]).repeat(4)
        repeated = [bowl for bowl in bowls for _ in range(3)]
        learner = learners.get("adam", schedule="warmup_cosine")
        trace = inner.run(learner, {"lr": rates}, repeated, [0] * 12, 150, eval_every=150, theta_stacked=True)
        best = trace.eval_loss[-1].reshape(4, 3).min(1).values
        assert (best < 0.2 * trace.eval_loss[0].reshape(4, 3)[:, 0]).all()


def test_unknown_templates_are_named() -> None:
    with pytest.raises(TaskError, match="quadratic has no template '9x9' in meta_test; it has 20x1-gradient"):
        FAMILY.build(TaskSpec("quadratic", "9x9", "meta_test", {"seed": 0}, 5))
