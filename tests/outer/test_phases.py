"""Phases: borders by hand, patterns, and a learner with a frozen part that is the whole learner."""

import pytest
import torch

from metaopt import inner, learners, tasks
from metaopt.config import load_config
from metaopt.errors import ConfigError
from metaopt.estimators import flatten
from metaopt.outer.phases import PartlyFrozen, joined, phase_of, phases_of


def phases(*sections: str, steps: int = 20):
    return phases_of(load_config("quickstart", [f"outer.phases=[{', '.join(sections)}]", f"outer.steps={steps}"]))


def test_borders_are_shares_of_the_steps() -> None:
    assert [(p.start, p.stop) for p in phases("{share: 2}", "{share: 1}", "{share: 1}")] == [(0, 10), (10, 15), (15, 20)]
    assert [(p.start, p.stop) for p in phases("{share: 0.1}", "{share: 0.9}")] == [(0, 2), (2, 20)]
    assert [p.stop for p in phases(*["{}"] * 3, steps=10)] == [3, 7, 10]
    (only,) = phases_of(load_config("quickstart"))
    assert (only.start, only.stop, only.train, only.horizon) == (0, 300, ("*",), None)
    with pytest.raises(ConfigError, match=r"^outer\.phases\.0\.share must give the phase a step of the 20, got 0\.01 "):
        phases("{share: 0.01}", "{}")


def test_a_phase_owns_the_steps_up_to_its_border() -> None:
    found = phases("{}", "{}")
    assert [phase_of(found, done).index for done in (0, 1, 10, 11, 20)] == [0, 0, 0, 1, 1]


def test_each_phase_has_its_own_step_size_or_the_common_one() -> None:
    first, second = phases("{lr: 1e-4}", "{}")
    assert (first.optimizer.lr, second.optimizer.lr) == (1e-4, 3e-3)
    assert first.optimizer.model_copy(update={"lr": 3e-3}) == second.optimizer


def test_split_and_joined_keep_the_order_of_theta() -> None:
    theta = {name: torch.tensor(float(i)) for i, name in enumerate(["w0", "b0", "w1", "b1", "log_step"])}
    (phase,) = phases("{train: ['b*', log_*]}")
    trained, frozen = phase.split(theta)
    assert list(trained) == ["b0", "b1", "log_step"]
    assert list(frozen) == ["w0", "w1"]
    assert list(joined(theta, trained, frozen)) == list(theta)
    assert phases("{}")[0].split(theta) == (theta, {})


@pytest.mark.parametrize("rule", ["celo2_base", "learnable_adam"])
def test_a_partly_frozen_learner_is_the_learner(rule: str) -> None:
    learner = learners.get(rule, schedule="warmup_cosine")
    theta = learner.init_theta(0)
    names = list(theta)[::2]
    frozen = {name: theta[name] for name in names}
    partly = PartlyFrozen(learner, frozen)
    trained = partly.init_theta(0)
    assert list(trained) == [name for name in theta if name not in names]
    assert torch.equal(flatten(joined(theta, trained, frozen)), flatten(theta))
    family = tasks.get("quadratic")
    batch = [family.build(family.sample("10x1-gradient", seed, (9, 9))) for seed in (1, 2)]
    stacked = {name: torch.stack([value, value + 0.01]) for name, value in trained.items()}
    whole = {name: torch.stack([value, value]) for name, value in frozen.items()}
    expected = inner.run(learner, {**stacked, **whole}, batch, [5, 6], 9, theta_stacked=True)
    got = inner.run(partly, stacked, batch, [5, 6], 9, theta_stacked=True)
    torch.testing.assert_close(got.loss, expected.loss, rtol=1e-5, atol=1e-6)
    assert hash(partly) != hash(PartlyFrozen(learner, frozen))  # compiled steps must not be shared between two frozen parts
