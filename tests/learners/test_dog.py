"""DoG and LDoG: the authors' formula step by step, what the formula promises, and the points where loss and gradient are taken."""

import math
from dataclasses import replace

import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.learners.dog import DoG, LDoG

STEPS = 40
BOTH = pytest.mark.parametrize("learner", [DoG(), LDoG()], ids=lambda learner: learner.name)


def problem(params, noise=0.0):
    """A smooth loss of a matrix and a vector that is no quadratic."""
    target = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
    return (params["w"] - target).pow(2).mul(torch.arange(1, 7).reshape(2, 3)).sum() + (params["b"] - 1 + noise).cosh().sum()


def start():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in {"w": (2, 3), "b": (4,)}.items()}


def noises(count=STEPS):
    return (0.3 * torch.randn(count, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).tolist()


def ours(learner, loss=problem, given=None, steps=STEPS, scales=None, noisy=True):
    """Return the averages and the iterates after every update."""
    h, params, averages, iterates = learner.hypers({}), given or start(), [], []
    state = learner.init_state(h, params)
    for t, noise in enumerate(noises(steps) if noisy else [0.0] * steps):
        grads = torch.func.grad(loss)(learner.gradient_point(h, params, state), noise)
        params, state = learner.update(h, params, grads, state, torch.tensor(t), h["lr"], scales or dict.fromkeys(params, 1.0))
        averages.append(params)
        iterates.append(state["x"])
    return averages, iterates


def straight(blocks, c, reps_rel, eps, weight_decay):
    """The method in the words of its paper, on plain lists of numbers; one step size for each block of tensors."""
    x = {name: value.flatten().tolist() for name, value in start().items()}
    first = {name: list(value) for name, value in x.items()}
    average = {name: list(value) for name, value in x.items()}
    norm = lambda vectors: math.sqrt(sum(v * v for vector in vectors for v in vector))  # noqa: E731
    radius = {block: reps_rel * (1 + norm([x[name] for name in block])) for block in blocks}
    total = dict.fromkeys(blocks, eps)
    path = []
    for t, noise in enumerate(noises(), start=1):
        point = {name: torch.tensor(x[name], dtype=torch.float64).reshape(value.shape) for name, value in start().items()}
        grads = {name: grad.flatten().tolist() for name, grad in torch.func.grad(problem)(point, noise).items()}
        grads = {name: [g + weight_decay * v for g, v in zip(grads[name], x[name], strict=True)] for name in grads}
        for block in blocks:
            far = norm([[a - b for a, b in zip(x[name], first[name], strict=True)] for name in block])
            radius[block] = max(radius[block], far)
            total[block] += norm([grads[name] for name in block]) ** 2
            for name in block:
                x[name] = [v - c * radius[block] / math.sqrt(total[block]) * g for v, g in zip(x[name], grads[name], strict=True)]
                average[name] = [(1 - 9 / (t + 8)) * a + 9 / (t + 8) * v for a, v in zip(average[name], x[name], strict=True)]
        path.append([*average["w"], *average["b"]])
    return torch.tensor(path, dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"reps_rel": 1e-2, "weight_decay": 0.1}, {"lr": 0.5, "reps_rel": 1e-3, "eps": 0.3}])
@pytest.mark.parametrize(("make", "blocks"), [(DoG, [("w", "b")]), (LDoG, [("w",), ("b",)])])
def test_it_is_the_papers_formula(make, blocks, options):
    learner = make(**options)
    found = torch.stack([torch.cat([one["w"].flatten(), one["b"]]) for one in ours(learner)[0]])
    reference = straight(blocks, learner.lr, learner.reps_rel, learner.eps, learner.weight_decay)
    torch.testing.assert_close(found, reference, rtol=1e-12, atol=1e-12)


@BOTH
def test_the_unit_of_the_loss_does_not_matter(learner):
    """Bit for bit where `eps` is too small to be seen; to about `eps` otherwise."""
    unseen = replace(learner, eps=1e-60)
    for factor in (2.0**-12, 2.0**20):
        scaled = lambda params, noise, factor=factor: factor * problem(params, noise)  # noqa: E731
        for one, other in zip(ours(unseen)[0], ours(unseen, scaled)[0], strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)
    kept, larger = ours(learner)[0][-1], ours(learner, lambda params, noise: 8.0 * problem(params, noise))[0][-1]
    torch.testing.assert_close(kept, larger, rtol=1e-8, atol=1e-8)


@BOTH
@pytest.mark.parametrize("reps_rel", [1e-8, 1e-6, 1e-4, 1e-2])
def test_a_bowl_is_solved_from_any_first_distance(learner, reps_rel):
    """A convex quadratic of condition number 30, six decades of first distances, nothing tuned."""
    curvature = torch.tensor([3.0, 1.0, 0.3, 0.1], dtype=torch.float64)

    def bowl(params, noise):
        return 0.5 * (curvature * (params["b"] - 2.0).square()).sum()

    given = {"b": torch.tensor([5.0, -1.0, 3.0, 0.0], dtype=torch.float64)}
    averages, _ = ours(replace(learner, reps_rel=reps_rel), bowl, given, steps=600, noisy=False)
    assert float(bowl(averages[-1], 0.0) / bowl(given, 0.0)) < 1e-3


def test_the_step_is_as_long_as_the_distance_allows():
    """Each step is at most the largest distance so far, and the first one nearly r * g / ||g||."""
    learner = DoG(reps_rel=1e-3)
    _, iterates = ours(learner)
    first, points = start(), [start(), *iterates]
    flat = torch.stack([torch.cat([point[name].flatten() for name in ("w", "b")]) for point in points])
    steps, far = (flat[1:] - flat[:-1]).norm(dim=1), (flat - flat[0]).norm(dim=1).cummax(0).values
    smallest = 1e-3 * (1 + float(torch.cat([value.flatten() for value in first.values()]).norm()))
    assert float(steps[0]) == pytest.approx(smallest, rel=1e-6)
    assert bool((steps <= torch.clamp(far[:-1], min=smallest) * (1 + 1e-12)).all())


def test_ldog_is_dog_on_every_tensor_alone():
    generous = {"reps_rel": 1e-3}
    together = ours(LDoG(**generous))[0][-1]
    for name in ("w", "b"):
        rest = {other: value for other, value in start().items() if other != name}
        alone = ours(DoG(**generous), lambda params, noise, rest=rest: problem({**rest, **params}, noise), {name: start()[name]})[0][-1]
        torch.testing.assert_close(together[name], alone[name], rtol=1e-12, atol=0)
    assert not torch.equal(together["w"], ours(DoG(**generous))[0][-1]["w"])


@BOTH
def test_the_average_forgets_the_start_and_follows_the_iterates(learner):
    """x_bar_1 = x_1, and then the share 9 / (t + 8) of the newest: after T steps iterate t weighs nearly 9 t**8 / T**9."""
    averages, iterates = ours(learner)
    assert all(torch.equal(averages[0][name], iterates[0][name]) for name in averages[0])
    weights = torch.zeros(STEPS, dtype=torch.float64)
    for t in range(1, STEPS + 1):
        weights = weights * (1 - 9 / (t + 8))
        weights[t - 1] = 9 / (t + 8)
    assert float(weights.sum()) == pytest.approx(1.0)
    expected = sum(weight * one["b"] for weight, one in zip(weights, iterates, strict=True))
    torch.testing.assert_close(averages[-1]["b"], expected, rtol=1e-12, atol=1e-12)


@BOTH
def test_loss_at_the_average_gradient_at_the_iterate(learner):
    family = tasks.get("quadratic")
    task, key = family.build(family.sample("8x4-minimum", 1, (60, 60))).to(dtype=torch.float64), seeds.key("run")
    learner = replace(learner, reps_rel=1e-3)
    carry, first = learner.init({}, task, key), None
    for t in range(60):
        batch, before = task.batch(key, torch.tensor(t)), carry
        carry, record = learner.advance({}, task, carry, batch)
        first = record.loss if first is None else first
        torch.testing.assert_close(record.loss, task.loss(before["params"], batch), rtol=1e-12, atol=0)
        grads, _, _ = task.gradients(before["state"]["x"], batch, {})
        again, _ = learner.update(learner.hypers({}), before["params"], grads, before["state"], before["t"], 1.0, dict.fromkeys(grads, 1.0))
        assert all(torch.equal(again[name], carry["params"][name]) for name in again)
    assert float(record.loss) < 0.5 * float(first)


@BOTH
def test_a_stack_of_runs_equals_runs_alone(learner):
    family = tasks.get("quadratic")
    task = family.build(family.sample("8x4-minimum", 1, (STEPS, STEPS))).to(dtype=torch.float64)
    theta = {"lr": torch.tensor([1.0, 0.5]), "reps_rel": torch.tensor([1e-4, 1e-2]), "weight_decay": torch.tensor([0.0, 0.1])}
    theta = {name: value.double() for name, value in theta.items()}
    together = inner.run(learner, theta, [task] * 2, [5, 6], STEPS, eval_every=10, theta_stacked=True)
    for i, seed in enumerate((5, 6)):
        alone = inner.run(
            replace(learner, **{name: float(value[i]) for name, value in theta.items()}), {}, [task], [seed], STEPS, eval_every=10
        )
        torch.testing.assert_close(together.loss[:, i], alone.loss[:, 0], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(together.eval_loss[:, i], alone.eval_loss[:, 0], rtol=1e-9, atol=1e-12)


@BOTH
def test_step_scales_reach_their_parameter_alone(learner):
    frozen = ours(learner, scales={"w": 0.0, "b": 1.0})[0][-1]
    assert torch.equal(frozen["w"], start()["w"])
    assert not torch.equal(frozen["b"], start()["b"])


@BOTH
def test_zero_gradients_change_nothing_and_have_finite_derivatives(learner):
    params = {"b": torch.zeros(3, dtype=torch.float64)}
    theta = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in learner.hyperparameters.items()}
    h, new = learner.hypers(theta), params
    state = learner.init_state(h, params)
    for t in range(2):
        new, state = learner.update(h, new, {"b": torch.zeros(3, dtype=torch.float64)}, state, torch.tensor(t), h["lr"], {"b": 1.0})
    assert torch.equal(new["b"], params["b"])
    total = new["b"].sum() + state["radius"]["b"] + 0.0 * sum(theta.values())
    assert all(bool(torch.isfinite(grad)) for grad in torch.autograd.grad(total, list(theta.values())))


def test_they_are_registered_and_data():
    assert learners.WHOLE_MODEL["dog"] is DoG
    assert learners.WHOLE_MODEL["ldog"] is LDoG
    assert hash(DoG()) == hash(replace(DoG()))
    assert DoG().hyperparameters == {"lr": 1.0, "reps_rel": 1e-6, "eps": 1e-8, "weight_decay": 0.0}
