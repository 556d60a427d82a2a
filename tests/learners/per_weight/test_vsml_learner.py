"""The learner: which tasks it works on, its step under the project's runners, evaluation with another batch size, transforms."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metaopt import inner, seeds, tasks
from metaopt.errors import ConfigError, TaskError
from metaopt.estimators.evolution import PES
from metaopt.inner.step import training_step
from metaopt.learners.forward_mode import jvp
from metaopt.learners.per_weight import predict, present, with_examples
from metaopt.learners.per_weight.vsml_learner import Layout, VSMLLearner, layout_of
from metaopt.tasks.source import TaskSource
from metaopt.tasks.task import Task

KEY = seeds.key("learner")
ZERO = torch.tensor(0)
SMALL = VSMLLearner(state=6, message=3)


def task_of(family: str, template: str | None = None, seed: int = 0, horizon: int = 10) -> Task:
    found = tasks.get(family)
    names = [name for split in tasks.SPLITS for name in found.templates(split)]
    return found.build(found.sample(template or names[0], seed, (horizon, horizon)))


def layout(task: Task) -> Layout:
    return layout_of(task, task.batch(KEY, ZERO))


def means(batch: int = 1, horizon: int = 10, seed: int = 0) -> Task:
    return task_of("class_means", {1: "features8-classes3-batch1", 4: "features8-classes3-batch4"}[batch], seed, horizon)


CLASSES = {"class_means": 2, "digits_mlp": 10, "digits_conv": 10, "digits_logistic": 10, "tabular_classification": 0}


@pytest.mark.parametrize(("family", "classes"), CLASSES.items())
def test_layouts_of_examples_with_labels(family: str, classes: int) -> None:
    task = task_of(family)
    found = layout(task)
    x, y = task.heldout(KEY, ZERO)["x"], task.heldout(KEY, ZERO)["y"]
    assert math.prod(found.extent) == x[0].numel()
    assert int(y.max()) < found.classes == (classes or int(y.max()) + 1)
    assert layout(tasks.reparametrise(task, 0, (0.5, 2.0))) == found  # what wraps a program changes nothing


def test_images_keep_their_extent() -> None:
    assert layout(task_of("digits_conv")).extent == (1, 8, 8)


@pytest.mark.parametrize("family", ["quadratic", "tabular_regression", "xor", "text_rnn", "digits_autoencoder", "neural_field"])
def test_other_tasks_are_refused_in_one_line(family: str) -> None:
    with pytest.raises(TaskError, match="needs a stream of numbers x") as error:
        layout(task_of(family))
    assert "\n" not in str(error.value)


def test_convolutions_need_images() -> None:
    with pytest.raises(ConfigError, match=r"\(channels, height, width\), got \(8,\)"):
        replace(SMALL, conv_channels=(2,)).init(SMALL.init_theta(0), means(), KEY)


def test_theta_of_tied_and_of_own_layers() -> None:
    names = set(SMALL.init_theta(0))
    assert all(name.startswith("cell.") for name in names)
    own = replace(SMALL, tied=False, hidden=(4,), conv_channels=(2,)).init_theta(0)
    assert len(own) == 3 * len(names)
    assert not torch.equal(own["layer0.bias"] + own["layer0.forward_weight"][:, 0], own["layer1.bias"] + own["layer1.forward_weight"][:, 0])
    assert all(torch.equal(a, b) for a, b in zip(SMALL.init_theta(1).values(), SMALL.init_theta(1).values(), strict=True))


@pytest.mark.parametrize("schedule", ["forward", "forward_backward"])
def test_a_step_is_a_presentation_and_its_loss_the_cross_entropy_before_the_label(schedule: str) -> None:
    learner, task = replace(SMALL, hidden=(4,), schedule=schedule), means(4)  # type: ignore[arg-type]
    theta = learner.init_theta(0)
    carry, batch = learner.init(theta, task, KEY), task.batch(KEY, ZERO)
    after, record = learner.advance(theta, task, carry, batch)
    state, logits = present(learner.network(layout(task)), learner.cell, theta, carry, batch["x"], batch["y"])
    assert float(record.loss) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, batch["y"])), rel=1e-6)
    assert [a.shape for a in tree_leaves(after)] == [a.shape for a in tree_leaves(carry)]
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(after), tree_leaves(state), strict=True))
    other = learner.advance(theta, task, carry, {**batch, "y": (batch["y"] + 1) % 3})[0]
    assert any(not torch.equal(a, b) for a, b in zip(tree_leaves(after), tree_leaves(other), strict=True))


def test_heldout_rows_are_predicted_from_the_state_and_nothing_is_learned() -> None:
    task, theta = means(4), SMALL.init_theta(0)
    carry = SMALL.init(theta, task, KEY)
    for t in range(3):
        carry, _ = SMALL.advance(theta, task, carry, task.batch(KEY, torch.tensor(t)))
    batch = task.heldout(KEY, ZERO)
    after, record = SMALL.advance(theta, task, carry, batch)
    assert after is carry
    spec = SMALL.network(layout(task))
    rows = [predict(spec, SMALL.cell, theta, with_examples(spec, carry, 1), x.unsqueeze(0))[1] for x in batch["x"]]
    wanted = torch.nn.functional.cross_entropy(torch.cat(rows), batch["y"])
    assert float(record.loss) == pytest.approx(float(wanted), rel=1e-5)


def test_held_out_rows_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    task, theta = means(4), SMALL.init_theta(0)
    carry = SMALL.init(theta, task, KEY)
    whole = SMALL.advance(theta, task, carry, task.heldout(KEY, ZERO))[1].loss
    monkeypatch.setattr("metaopt.learners.per_weight.vsml_learner._ROW_EDGES", 24 * 7)
    assert float(SMALL.advance(theta, task, carry, task.heldout(KEY, ZERO))[1].loss) == pytest.approx(float(whole), rel=1e-5)


def test_the_loss_is_in_the_units_of_the_task() -> None:
    """A task whose loss is scaled has a normalised loss that is not."""
    spec = tasks.get("digits_mlp").sample(tasks.get("digits_mlp").templates("meta_test")[0], 0, (5, 5))
    plain, scaled = tasks.build(spec), tasks.build(replace(spec, values={**spec.values, "shift.loss_scale": 8.0}))
    theta, losses = SMALL.init_theta(0), []
    for task in (plain, scaled):
        losses.append(SMALL.advance(theta, task, SMALL.init(theta, task, KEY), task.batch(KEY, ZERO))[1].loss)
    assert float(losses[1]) == pytest.approx(8.0 * float(losses[0]))
    assert float(scaled.normalise(losses[1])) == pytest.approx(float(plain.normalise(losses[0])))


def test_a_particle_is_what_it_would_be_alone() -> None:
    """Stacked theta, tasks and carries: runs of `inner.run` do not mix, and evaluations do not touch them."""
    learner, made = replace(SMALL, hidden=(4,)), [means(4, seed=i) for i in range(3)]
    thetas = [learner.init_theta(i) for i in range(3)]
    stacked = {name: torch.stack([theta[name] for theta in thetas]) for name in thetas[0]}
    together = inner.run(learner, stacked, made, [5, 6, 7], 6, eval_every=3, theta_stacked=True)
    plain = inner.run(learner, stacked, made, [5, 6, 7], 6, theta_stacked=True)
    assert torch.equal(together.loss, plain.loss)
    assert torch.isfinite(together.eval_loss).all()
    for i in range(3):
        alone = inner.run(learner, thetas[i], [made[i]], [5 + i], 6)
        assert torch.allclose(together.loss[:, i], alone.loss[:, 0], rtol=1e-4)


def episode(theta: dict[str, Tensor], learner: VSMLLearner, task: Task) -> Tensor:
    carry, total = learner.init(theta, task, KEY), torch.zeros((), dtype=torch.float64)
    for t in range(3):
        carry, record = learner.advance(theta, task, carry, task.batch(KEY, torch.tensor(t)))
        total = total + record.loss
    return total


@pytest.mark.parametrize("options", [{}, {"schedule": "forward_backward", "hidden": (3,), "layer_norm": True, "feed_label": True}])
def test_derivatives_are_finite_differences(options: dict[str, object]) -> None:
    """Reverse and forward mode through an episode, in one direction, in float64."""
    learner = VSMLLearner(state=4, message=2, **options)  # type: ignore[arg-type]
    task = means(1).to(dtype=torch.float64)
    theta = {name: value.double() for name, value in learner.init_theta(0).items()}
    way = {name: torch.sin(torch.arange(value.numel(), dtype=torch.float64)).reshape(value.shape) for name, value in theta.items()}

    def moved(step: float) -> Tensor:
        return episode({name: value + step * way[name] for name, value in theta.items()}, learner, task)

    numeric = float(moved(1e-5) - moved(-1e-5)) / 2e-5
    grads = torch.func.grad(lambda theta: episode(theta, learner, task))(theta)
    assert sum(float((grads[name] * way[name]).sum()) for name in way) == pytest.approx(numeric, rel=1e-5)
    assert float(jvp(lambda theta: episode(theta, learner, task), (theta,), (way,))[1]) == pytest.approx(numeric, rel=1e-5)


def test_evolution_strategies_see_the_same_data_in_both_signs() -> None:
    """Where theta does not matter (zero readouts stay zero without noise on them), nothing differs; elsewhere the estimate is finite."""
    source = TaskSource(tasks.get("class_means"), "features8-classes2-batch1", (6, 6), 0)
    estimator = PES(window=3, sigma=0.05).build(SMALL, source, 2, 0)
    found = estimator.estimate(SMALL.init_theta(0), 0)
    assert all(bool(torch.isfinite(value).all()) for value in found.grad.values())
    assert found.loss == pytest.approx(1.0, abs=0.2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler
@pytest.mark.parametrize("schedule", ["forward", "forward_backward"])
def test_the_compiled_step_is_the_same(schedule: str) -> None:
    learner, task = VSMLLearner(hidden=(3,), state=6, message=3, schedule=schedule), means(4)  # type: ignore[arg-type]
    theta = learner.init_theta(0)
    plain, compiled = (inner.run(learner, theta, [task, task], [0, 1], 4, 4, compile=way).loss for way in (False, True))
    assert torch.allclose(plain, compiled, rtol=1e-4)


def test_convolutions_present_images() -> None:
    task, learner = task_of("digits_conv"), replace(SMALL, conv_channels=(2,), schedule="forward_backward")
    theta = learner.init_theta(0)
    carry, batch = learner.init(theta, task, KEY), task.batch(KEY, ZERO)
    few = {name: value[:2] for name, value in batch.items()}
    state = {"edges": {name: {k: v[:2] for k, v in entries.items()} for name, entries in carry["edges"].items()}, "backward": {}}
    after, record = learner.advance(theta, task, state, few)
    assert math.isfinite(float(record.loss))
    assert [a.shape for a in tree_leaves(after)] == [a.shape for a in tree_leaves(state)]


def test_a_step_is_hashable_work() -> None:
    """Equal learners share a step; its options tell learners apart."""
    program = means().program
    assert training_step(VSMLLearner(), program, False, False) is training_step(VSMLLearner(), program, False, False)
    assert training_step(VSMLLearner(), program, False, False) is not training_step(VSMLLearner(ticks=1), program, False, False)
