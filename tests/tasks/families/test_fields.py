"""Neural fields: programs of their shapes, the trivial predictor at one, pixels that were never seen."""

import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.tasks.streams.coordinates import Coordinates
from metaopt.tasks.task import Task

FAMILY = tasks.get("neural_field")
TEMPLATES = FAMILY.templates("meta_test")
KEY, T0 = seeds.key("run"), torch.tensor(0)


def task_of(template: str, seed: int = 0, horizon: int = 100) -> Task:
    return FAMILY.build(FAMILY.sample(template, seed, (horizon, horizon)))


def test_it_has_test_templates_only_each_of_a_picture_of_its_own() -> None:
    assert [len(FAMILY.templates(split)) for split in tasks.SPLITS] == [0, 0, 3]
    assert len({task_of(template).program.stream.source for template in TEMPLATES}) == 3


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_mean_pixel_has_loss_one(template: str) -> None:
    task = task_of(template)
    zero = {name: torch.zeros_like(value) for name, value in task.init(KEY).items()}
    assert isinstance(task.program.stream, Coordinates)
    whole = {"x": task.shared["train_x"], "y": task.shared["train_y"]}
    mean = {**zero, max(name for name in zero if "bias" in name): whole["y"].mean().reshape(1)}
    assert float(task.normalise(task.loss(mean, whole))) == pytest.approx(1.0, abs=1e-5)
    assert float(task.loss(zero, whole)) == pytest.approx(float(whole["y"].square().mean()), rel=1e-5)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_prediction_is_the_net_of_the_encoded_coordinates(template: str) -> None:
    task = task_of(template)
    params, batch = task.init(KEY), task.batch(KEY, T0)
    outputs = task.program.model.apply(params, batch["x"])
    assert batch["x"].shape == (128, task.program.stream.inputs)
    assert float(task.loss(params, batch)) == pytest.approx(float((outputs[:, 0] - batch["y"]).square().mean()), rel=1e-5)


def test_adam_paints_pixels_that_it_never_saw() -> None:
    template = "ihc-features32-width48-depth2-relu-batch128"
    trace = inner.run(learners.get("adam"), {"lr": torch.tensor(1e-2)}, [task_of(template)], [0], 200, eval_every=200)
    assert float(trace.eval_loss[-1, 0]) < 0.3 < 0.8 < float(trace.eval_loss[0, 0])
