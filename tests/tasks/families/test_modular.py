"""Modular arithmetic: a guess is one, a table of answers is nearly zero, and generalising comes late, by weight decay only."""

import math

import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.evaluation.scores.late_generalisation import late_generalisation
from metaopt.tasks.task import Task

FAMILY = tasks.get("modular_arithmetic")
TEMPLATES = FAMILY.templates("meta_test")
KEY, T0 = seeds.key("run"), torch.tensor(0)
EVERY = 50


def task_of(template: str, seed: int = 0, horizon: int = 100) -> Task:
    return FAMILY.build(FAMILY.sample(template, seed, (horizon, horizon)))


def moments(template: str, weight_decay: float, steps: int, count: int):
    group = [task_of(template, seed, steps) for seed in range(count)]
    theta = {"lr": torch.tensor(1e-2), "weight_decay": torch.tensor(weight_decay)}
    trace = inner.run(learners.get("adamw"), theta, group, range(count), steps, eval_every=EVERY)
    train = torch.cat([trace.normalised[:1], trace.normalised.reshape(-1, EVERY, count).mean(1)])
    curves = (trace.eval_steps.numpy(), train.double().numpy(), trace.eval_loss.double().numpy())
    return late_generalisation(*curves), trace


def test_it_has_test_templates_only() -> None:
    assert [len(FAMILY.templates(split)) for split in tasks.SPLITS] == [0, 0, 3]
    assert FAMILY.offers == ("stream", "model")


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_uniform_guess_has_loss_one(template: str) -> None:
    task = task_of(template)
    guess = {name: torch.zeros_like(value) for name, value in task.init(KEY).items()}
    modulus = int(template.split("-")[0].removeprefix("plus").removeprefix("times"))
    for batch in (task.batch(KEY, T0), task.heldout(KEY, T0)):
        assert float(task.loss(guess, batch)) == pytest.approx(math.log(modulus), rel=1e-6)
        assert float(task.normalise(task.loss(guess, batch))) == pytest.approx(1.0, rel=1e-6)


def test_waves_on_a_circle_solve_addition() -> None:
    """Numbers as angles: the class whose angle is nearest to the sum of both is the answer, on pairs that were held out too."""
    modulus = 31
    x = task_of("plus31-mlp48-share60").shared
    angle = 2.0 * math.pi * torch.arange(modulus) / modulus
    a, b = angle[x["heldout_x"][:, 0]], angle[x["heldout_x"][:, 1]]
    logits = torch.cos((a + b).unsqueeze(-1) - angle)  # largest at c = a + b mod p
    assert torch.equal(logits.argmax(-1), x["heldout_y"])


def test_memorising_is_no_divergence() -> None:
    """A net that is sure of wrong answers has a held-out loss of several times the reference and still is below the cap."""
    task = task_of("plus31-mlp48-share60")
    assert float(task.normalise(torch.tensor(12.9 * math.log(31)))) == pytest.approx(12.9, rel=1e-5)
    assert task.program.cap == 30.0


def test_weight_decay_makes_the_difference_after_fitting() -> None:
    """The smallest case, where the late fall of the held-out loss begins within a second."""
    (late, decayed), (never, plain) = (moments("times29-mlp48-share70", decay, 300, 1) for decay in (1.0, 0.0))
    assert late.t_fit[0] == never.t_fit[0] == 100.0  # of means over 50 steps
    assert late.gap[0] >= 150.0
    assert float(decayed.eval_loss[-1, 0]) < 0.1 < 1.0 < float(plain.eval_loss[-1, 0])
    assert not decayed.diverged.any()


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_adam_generalises_late_with_weight_decay_and_never_without(template: str) -> None:
    late, _ = moments(template, 1.0, 1200, 3)
    never, trace = moments(template, 0.0, 1200, 3)
    assert (late.t_fit <= 100).all(), late
    assert (late.t_gen <= 1200).all(), late
    assert (late.ratio >= 3.0).all(), late
    assert (late.gap >= 200).all(), late
    assert (never.t_fit <= 100).all(), never
    assert (never.t_gen == math.inf).all(), never
    assert (trace.eval_loss[-1] > 1.0).all()
    assert not trace.diverged.any()
