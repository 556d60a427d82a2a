"""Halves of held-out examples: disjoint, together the whole, and nothing for tasks without examples."""

import pytest
import torch

from metaopt import seeds, tasks
from metaopt.tasks.augmentations.scaled_loss import WithScaledLoss
from metaopt.tasks.halves import DECIDING, SCORING, half_loss, half_of
from metaopt.tasks.task import SPLITS

KEY = seeds.key("halves")


def built(family, template=None, horizon=64):
    found = tasks.get(family)
    template = template or found.templates("meta_train")[0]
    return found.build(found.sample(template, 1, (horizon, horizon)))


def heldout(task):
    return task.heldout(KEY, torch.tensor(0))


@pytest.mark.parametrize("family", ["digits_mlp", "tabular_regression", "text_rnn", "digits_autoencoder"])
def test_halves_are_disjoint_and_together_the_whole(family):
    task = built(family)
    whole = heldout(task)
    deciding, scoring = (half_of(task.program, whole, half) for half in (DECIDING, SCORING))
    for name, rows in whole.items():
        assert torch.equal(deciding[name], rows[0::2])
        assert torch.equal(scoring[name], rows[1::2])
        assert len(deciding[name]) - len(scoring[name]) in (0, 1)


def test_losses_of_the_halves_average_to_that_of_the_whole():
    task = built("digits_mlp")
    params = task.init(KEY)
    rows = heldout(task)["y"]
    weights = {half: len(half_of(task.program, heldout(task), half)["y"]) / len(rows) for half in (DECIDING, SCORING)}
    mean = sum(weight * half_loss(task, params, KEY, half) for half, weight in weights.items())
    assert mean.item() == pytest.approx(task.normalise(task.loss(params, heldout(task))).item(), rel=1e-5)


def test_a_quadratic_has_one_objective_for_both():
    task = built("quadratic")
    params = task.init(KEY)
    one, two = (half_loss(task, params, KEY, half) for half in (DECIDING, SCORING))
    assert torch.equal(one, two)
    assert torch.equal(one, task.normalise(task.loss(params, heldout(task))))


def test_a_task_in_a_wrapper_is_split_as_the_one_inside():
    program, rows = built("digits_mlp").program, heldout(built("digits_mlp"))
    assert torch.equal(half_of(WithScaledLoss(program), rows, SCORING)["x"], rows["x"][1::2])


@pytest.mark.parametrize(
    "family", ["quadratic", "text_gru", "digits_vae", "neural_field", "modular_arithmetic", "matrix_completion", "physics_informed", "xor"]
)
def test_families_of_every_kind_have_a_loss_on_both_halves(family):
    found = tasks.get(family)
    split = next(split for split in SPLITS if found.templates(split))
    task = found.build(found.sample(found.templates(split)[0], 1, (8, 8)))
    params = task.init(KEY)
    losses = [half_loss(task, params, KEY, half) for half in (DECIDING, SCORING)]
    assert all(torch.isfinite(loss) for loss in losses)
    whole = task.program.normalise(task.numbers, task.loss(params, heldout(task)))
    assert 0.5 * sum(losses).item() == pytest.approx(whole.item(), rel=0.1)


def test_entries_without_examples_and_single_examples_stay():
    program = built("digits_mlp").program
    batch = {"key": torch.tensor(3), "x": torch.ones(1, 4)}
    assert half_of(program, batch, SCORING)["key"] == 3
    assert half_of(program, batch, SCORING)["x"].shape == (1, 4), "a mean over no examples is not a number"


def test_the_cap_is_left_out():
    task = built("digits_mlp")
    params = {name: 100 * value for name, value in task.init(KEY).items()}
    assert half_loss(task, params, KEY, SCORING) > task.program.cap
    broken = {name: value * float("nan") for name, value in params.items()}
    assert torch.isnan(half_loss(task, broken, KEY, SCORING))


def test_many_runs_at_once_equal_one_by_one():
    task = built("tabular_classification")
    keys = torch.stack([seeds.key("run", i) for i in range(3)])
    params = torch.func.vmap(task.init)(keys)
    together = torch.func.vmap(lambda p, k: half_loss(task, p, k, SCORING))(params, keys)
    alone = torch.stack([half_loss(task, {n: v[i] for n, v in params.items()}, keys[i], SCORING) for i in range(3)])
    assert torch.allclose(together, alone, rtol=1e-6)
