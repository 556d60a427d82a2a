"""What a task says about its parameters by name reaches the learner: factors of the step size, and embeddings."""

from dataclasses import dataclass

import pytest
import torch

from metaopt import inner, learners, seeds
from metaopt.errors import TaskError
from metaopt.learners import GradientLearner
from metaopt.tasks import Task
from metaopt.tasks.augmentations import Reparametrisation


@dataclass(frozen=True)
class TwoVectors:
    """0.5 |a - 1|^2 + 0.5 |b - 1|^2, with properties about its parameters."""

    scaled: tuple[tuple[str, float], ...] = ()
    looked_up: tuple[str, ...] = ()
    cap: float = 10.0

    @property
    def step_scales(self):
        return dict(self.scaled)

    @property
    def embeddings(self):
        return frozenset(self.looked_up)

    def shared(self):
        return {}

    def init(self, numbers, key):
        return {name: seeds.normal(seeds.fold_in(key, i), (3, 2), numbers["horizon"].dtype) for i, name in enumerate("ab")}

    def batch(self, numbers, shared, key, step):
        return {}

    def heldout(self, numbers, shared, key, step):
        return {}

    def loss(self, numbers, params, batch):
        return sum(0.5 * (value - 1).square().sum() for value in params.values())

    def normalise(self, numbers, raw):
        return raw / 6


@dataclass(frozen=True)
class Rows:
    """Gradient descent, but an embedding takes steps of one tenth."""

    name = "rows"

    @property
    def hyperparameters(self):
        return {"lr": 0.1}

    def init_theta(self, seed):
        return {}

    def init_state(self, param):
        return {}

    def init_embedding_state(self, param):
        return {"seen": param.new_zeros(())}

    def update(self, theta, param, grad, state, t):
        return (0.1 * grad, {"seen": state["seen"] + 1}) if "seen" in state else (grad, {})


def task(**options) -> Task:
    return Task(TwoVectors(**options), {"horizon": torch.tensor(10.0, dtype=torch.float64)}, {})


def one_step(learner, subject: Task):
    carry = learner.init({}, subject, seeds.key(0))
    after, _ = learner.advance({}, subject, carry, {})
    return {name: (after["params"][name] - value) / (1 - value) for name, value in carry["params"].items()}


def test_a_step_scale_multiplies_the_whole_step_of_its_parameter() -> None:
    moved = one_step(learners.get("sgd", lr=0.5), task(scaled=(("b", 0.25),)))
    torch.testing.assert_close(moved["a"], torch.full((3, 2), 0.5, dtype=torch.float64))
    torch.testing.assert_close(moved["b"], torch.full((3, 2), 0.125, dtype=torch.float64))


def test_scales_of_one_and_none_give_the_same_bits() -> None:
    learner = learners.get("adamw", schedule="warmup_cosine", weight_decay=0.1)
    plain, ones = (inner.run(learner, {}, [subject], [0], 10).loss for subject in (task(), task(scaled=(("a", 1.0), ("b", 1.0)))))
    assert torch.equal(plain, ones)


def test_weight_decay_is_scaled_with_the_step() -> None:
    learner = learners.get("sgd", lr=0.5, weight_decay=0.1)
    subject = task(scaled=(("b", 0.25),))
    carry = learner.init({}, subject, seeds.key(0))
    b = carry["params"]["b"]
    after, _ = learner.advance({}, subject, carry, {})
    torch.testing.assert_close(after["params"]["b"], b - 0.5 * 0.25 * ((b - 1) + 0.1 * b))


def test_an_embedding_gets_the_state_of_an_embedding() -> None:
    moved = one_step(GradientLearner(Rows()), task(looked_up=("b",)))
    torch.testing.assert_close(moved["a"], torch.full((3, 2), 0.1, dtype=torch.float64))
    torch.testing.assert_close(moved["b"], torch.full((3, 2), 0.01, dtype=torch.float64))


def test_other_rules_treat_an_embedding_as_a_matrix() -> None:
    learner = learners.get("celo2_base")
    theta = {name: value.double() for name, value in learner.init_theta(0).items()}
    one, two = (inner.run(learner, theta, [subject], [0], 5).loss for subject in (task(), task(looked_up=("b",))))
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scaled": (("c", 0.5),)}, "task step_scales names 'c', which is no parameter; known: a, b"),
        ({"looked_up": ("aa",)}, r"task embeddings names 'aa', which is no parameter; did you mean 'a'\? known: a, b"),
    ],
)
def test_a_name_that_is_no_parameter_is_refused(options, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        learners.get("sgd").init({}, task(**options), seeds.key(0))


def test_both_are_seen_through_an_augmentation() -> None:
    changed = Reparametrisation().apply(task(scaled=(("b", 0.25),), looked_up=("a",)), 0)
    assert (changed.step_scales, changed.embeddings) == ({"b": 0.25}, {"a"})
    assert not Reparametrisation().apply(task(), 0).embeddings
