"""Meta-training a per-weight network with the project's own estimator: it takes off from chance, and learns like a learning rule."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from metaopt import seeds, tasks
from metaopt.estimators.backprop import FullBackprop
from metaopt.learners.per_weight import fresh_state, present
from metaopt.learners.per_weight.vsml_learner import VSMLLearner, layout_of
from metaopt.tasks.source import TaskSource
from metaopt.tasks.task import Task, stack_tasks

TEMPLATE, HORIZON = "features8-classes2-batch1", 24
LEARNER = VSMLLearner()


@dataclass
class Run:
    """Meta-training by backpropagation through whole episodes: 32 tasks an update, Adam, clipped to norm 1."""

    learner: VSMLLearner = LEARNER
    template: str = TEMPLATE
    horizon: int = HORIZON
    lr: float = 5e-3
    seed: int = 0
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        source = TaskSource(tasks.get("class_means"), self.template, (self.horizon, self.horizon), self.seed)
        self.estimator = FullBackprop(checkpoint_steps=self.horizon).build(self.learner, source, 16, self.seed)
        self.theta = {name: value.clone() for name, value in self.learner.init_theta(self.seed).items()}
        self.adam = torch.optim.Adam(list(self.theta.values()), lr=self.lr)

    def update(self) -> float:
        """Make one outer step; return the mean normalised loss of its episodes."""
        found = self.estimator.estimate(self.theta, len(self.losses))
        for name, value in self.theta.items():
            value.grad = found.grad[name]
        torch.nn.utils.clip_grad_norm_(list(self.theta.values()), 1.0)
        self.adam.step()
        self.losses.append(found.loss)
        return found.loss


def predictions(learner: VSMLLearner, theta: dict[str, Tensor], made: list[Task], steps: int) -> tuple[Tensor, Tensor]:
    """Whether each example was predicted right before its label was seen, and its loss, [steps, tasks] both."""
    stacked = stack_tasks(made)
    keys = torch.stack([seeds.key("evaluation", i) for i in range(len(made))])
    spec = learner.network(layout_of(made[0], made[0].batch(keys[0], torch.tensor(0))))
    state = vmap(lambda key: fresh_state(spec, learner.cell, theta, key))(keys)
    right, losses = [], []
    for t in range(steps):

        def one(numbers: dict[str, Tensor], key: Tensor, state: dict, t: int = t) -> tuple[dict, Tensor, Tensor]:  # type: ignore[type-arg]
            batch = Task(stacked.program, numbers, {}).batch(key, torch.tensor(t))
            state, logits = present(spec, learner.cell, theta, state, batch["x"], batch["y"])
            return state, logits, batch["y"]

        state, logits, y = vmap(one)(stacked.numbers, keys, state)
        right.append((logits.argmax(-1) == y).float().mean(-1))
        losses.append(
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").reshape(len(made), -1).mean(-1)
        )
    return torch.stack(right), torch.stack(losses)


def unseen(template: str, steps: int, count: int = 64) -> list[Task]:
    family = tasks.get("class_means")
    return [family.build(family.sample(template, 10**6 + i, (steps, steps))) for i in range(count)]


@torch.no_grad()
def accuracy(learner: VSMLLearner, theta: dict[str, Tensor], template: str = TEMPLATE, steps: int = HORIZON) -> float:
    """Share of examples that are predicted right over whole episodes of 64 unseen tasks."""
    return float(predictions(learner, theta, unseen(template, steps), steps)[0].mean())


def test_an_untrained_network_is_at_chance() -> None:
    """Its first losses are those of a guess; its gradient reaches all of theta but backward readouts, which one layer sends to nobody."""
    run = Run()
    start = {name: value.clone() for name, value in run.theta.items()}
    assert run.update() == pytest.approx(1.0, abs=0.05)
    assert 0.3 < accuracy(LEARNER, start) < 0.7
    still = {name for name, value in start.items() if torch.equal(run.theta[name], value)}
    assert still == {"cell.backward_out", "cell.backward_out_bias"}


@pytest.mark.slow
def test_backpropagation_through_episodes_takes_off() -> None:
    """Two classes in eight dimensions, 24 examples: 0.5 is chance, online SGD at the best of eight rates has 0.87, 450 updates 0.88."""
    run = Run()
    while len(run.losses) < 450:
        run.update()
        if len(run.losses) >= 200 and math.fsum(run.losses[-20:]) / 20 < 0.41:
            break
    assert accuracy(LEARNER, run.theta) > 0.85
