"""Shards under all augmentations: saved and loaded they go on bit for bit, and every estimator gets finite meta-gradients from them."""

import pytest
import torch

from metaopt import learners
from metaopt.config import Config, load_config
from metaopt.estimators import ESTIMATORS, flatten
from metaopt.outer.blobs import from_blob, to_blob
from metaopt.outer.shards import make_learner, shard_sources
from metaopt.tasks.augmentations import AUGMENTATIONS

SMALL = {"outer.shard_particles": 2, "outer.estimator.window": 4, "tasks.0.horizon": [5, 9], "tasks.1.horizon": [5, 9]}


def config(**sections: dict[str, object]) -> Config:
    options = {"scale": [0.2, 5.0], "level": "any"}
    every = {f"augmentations.{name}": options if name == "reparametrisation" else {} for name in AUGMENTATIONS}
    return load_config("quickstart", {**SMALL, **every, **{f"augmentations.{name}": value for name, value in sections.items()}})


@pytest.mark.parametrize("shard", [0, 2])
def test_a_shard_goes_on_from_its_saved_state(shard: int) -> None:
    run = config()
    learner, source = make_learner(run), shard_sources(run)[shard]
    assert len(source.chosen) == len(AUGMENTATIONS)
    theta = learner.init_theta(0)

    def fresh():
        return run.outer.estimator.recipe.build(learner, source, 2, 7, "cpu", False)

    one = fresh()
    for step in range(3):
        one.estimate(theta, step)
    state = from_blob(to_blob(one.state()))
    assert any(name.startswith("delayed_gradients.") for name in state["pairs"]["carry"]["gradient_state"])
    two = fresh()
    two.load(state)
    for step in (3, 4, 5):
        first, second = one.estimate(theta, step), two.estimate(theta, step)
        assert torch.equal(flatten(first.grad), flatten(second.grad))
        assert first.loss == second.loss
        assert bool(torch.isfinite(flatten(first.grad)).all())
    assert float(flatten(first.grad).norm()) > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first forward derivative
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_every_estimator_runs_through_all_augmentations(name: str) -> None:
    run = config(bfloat16={"probability": 0.0})
    learner, source = learners.get("learnable_adam"), shard_sources(run)[2]
    estimator = ESTIMATORS[name](window=4).build(learner, source, 2, 0, "cpu", False)
    theta = learner.init_theta(0)
    for step in range(2):
        found = estimator.estimate(theta, step)
        assert bool(torch.isfinite(flatten(found.grad)).all())
        assert found.nonfinite == 0
    assert float(flatten(found.grad).norm()) > 0
