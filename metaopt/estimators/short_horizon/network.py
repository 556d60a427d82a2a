"""The network of the short-horizon experiments, and heavy-ball runs of it whose loss is taken now and then.

A rectifier network of two hidden layers on sequences that stand in for digits, small batches, momentum, and some steps at a hand-set rate
before anything is measured, so that look-aheads do not begin in the first fall of the loss. The loss is that of 1,000 training examples,
as in the paper: what is studied is optimization.

Legend: N runs (stacked), M moments at which the loss is taken.

Source: Wu, Ren, Liao, Grosse, 2018, "Understanding short-horizon bias in stochastic meta-optimization", section 4. Differs: 40-64-64-10 on
MNIST-1D at batch 16 in place of 784-100-100-10 on MNIST at batch 100, and ten times fewer steps.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor
from torch.func import grad, vmap

from metaopt import seeds
from metaopt.tasks.data.mnist1d import MNIST1D
from metaopt.tasks.families.supervised import Supervised
from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.streams import Examples
from metaopt.tasks.task import Batch, Params, Task

__all__ = [
    "HAND_RATE",
    "MOMENTUM",
    "PRETRAINING",
    "Interval",
    "Weights",
    "batches",
    "heavy_ball",
    "interval",
    "network_task",
    "pretrained",
    "stacked_rows",
    "train",
    "training_loss",
]

MOMENTUM = 0.9
HAND_RATE = 0.01  # after 2,000 steps better than three times more or less
PRETRAINING = 50  # steps
_LOOKED_AT = 1_000  # training examples
_AHEAD = 64  # steps whose batches are drawn in one go
_INIT, _PRETRAIN = 0, 1  # branches of a run's key

Rates = Callable[[int], tuple[Tensor, Tensor | float]]  # step -> rate [N], momentum [N] or one for all


class Weights(NamedTuple):
    """Parameters and momentum buffers by name, stacked over runs [N, ...]."""

    params: Params
    buffers: Params


class Interval(NamedTuple):
    """A mean and its 95 % interval (Student's t)."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of at least two independent values with its interval."""
    found = torch.tensor(values, dtype=torch.float64)
    mean, half = float(found.mean()), float(stdtrit(len(values) - 1, 0.975) * found.std() / math.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def network_task(batch_size: int = 16, width: int = 64) -> Task:
    """Return the task; its normalisation is not used."""
    program = Supervised(
        Examples(MNIST1D, MNIST1D.shape, batch_size), MLP((math.prod(MNIST1D.shape), width, width, MNIST1D.classes), "relu")
    )
    values = {"init_scale": math.sqrt(2.0), "reference": math.log(MNIST1D.classes), "floor": 0.0, "horizon": 1.0}
    return Task(program, {name: torch.tensor(value) for name, value in values.items()}, program.shared())


def batches(task: Task, keys_N: Tensor, clocks: Tensor) -> Batch:
    """Return batches [S, N, B, ...] of S clock values: functions of key and clock, equal for equal keys."""

    def one(key: Tensor, clock: Tensor) -> Batch:
        return task.batch(key, clock)

    return vmap(vmap(one, in_dims=(0, None)), in_dims=(None, 0))(keys_N, clocks)


def heavy_ball(task: Task, weights: Weights, batch: Batch, rate: Tensor | float, momentum: Tensor | float) -> Weights:
    """Return the weights of one run after v' = m v + g, w' = w - a v'; differentiable in rate and momentum."""
    gradient = grad(task.loss)(weights.params, batch)
    buffers = {name: momentum * buffer + gradient[name] for name, buffer in weights.buffers.items()}
    return Weights({name: param - rate * buffers[name] for name, param in weights.params.items()}, buffers)


def pretrained(task: Task, keys_N: Tensor, steps: int = PRETRAINING) -> Weights:
    """Return fresh weights after some steps at the hand-set rate; a function of each key."""
    params: Params = vmap(lambda key: task.init(seeds.fold_in(key, _INIT)))(keys_N)
    start = Weights(params, {name: torch.zeros_like(param) for name, param in params.items()})
    hand = torch.full(keys_N.shape, HAND_RATE)
    weights, _ = train(task, start, seeds.fold_in(keys_N, _PRETRAIN), steps, lambda _: (hand, MOMENTUM))
    return weights


def train(
    task: Task, weights: Weights, keys_N: Tensor, steps: int, rates: Rates, moments: Sequence[int] = (), first: int = 0
) -> tuple[Weights, Tensor]:
    """Return the weights after some steps, and training losses.

    Args:
        task: the task.
        weights: of N runs; not changed.
        keys_N: of their batches, int64.
        steps: how many to make.
        rates: rate and momentum of each step.
        moments: numbers of steps made before the loss is taken, ascending, within [first, first + steps].
        first: number of the first step, from which on batches and `rates` count.

    Returns:
        The weights, and losses [M, N].
    """
    step = vmap(lambda w, b, a, m: heavy_ball(task, w, b, a, m))
    losses = []
    with torch.no_grad():
        for t in range(first, first + steps + 1):
            if t in moments:
                losses.append(training_loss(task, weights.params))
            if t < first + steps:
                at = (t - first) % _AHEAD
                if at == 0:
                    ahead = batches(task, keys_N, torch.arange(t, min(t + _AHEAD, first + steps)))
                rate, momentum = rates(t)
                weights = step(weights, {name: value[at] for name, value in ahead.items()}, rate, torch.as_tensor(momentum).expand_as(rate))
    return weights, torch.stack(losses) if losses else torch.empty(0, len(keys_N))


def stacked_rows(weights: Weights, index: Tensor | slice) -> Weights:
    """Return some runs of a stack, as often as the index names them."""
    return Weights(*({name: value[index] for name, value in part.items()} for part in weights))


def training_loss(task: Task, params: Params) -> Tensor:
    """Return the mean loss [N] of the first 1,000 training examples; inf where it is not finite."""
    kept = slice(_LOOKED_AT)
    looked_at = {"x": task.shared["train_x"][kept], "y": task.shared["train_y"][kept]}
    loss_N: Tensor = vmap(lambda p: task.loss(p, looked_at))(params)
    return torch.where(torch.isfinite(loss_N), loss_N, math.inf)
