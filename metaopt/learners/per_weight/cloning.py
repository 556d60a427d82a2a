"""Teach the cell to do what backpropagation does: learning-algorithm cloning, edge by edge and with no data at all.

An edge stands for a weight w and a bias b of its own. It reads x and, in the sweep down, the derivative d of the loss by its output:

    forward message    tanh(x) w + b
    change             w -= step tanh(x) d,    b -= step d
    backward message   w d (1 - tanh(x)^2)

A network of such edges (schedule `forward_backward`, sums) is online SGD on an MLP with layers z_b = sum over a of tanh(x_a) w_ab + b_ab.
Messages travel in channel 0; the forward one is in channel 1 too, where predictions are read.

Where a cell keeps w and b is told to it: four entries of c hold size / 2 times (w + b, w - b, w + b, w - b). That suits an LSTM. With
t = tanh(x) the change is -step d sigmoid(2x) in one pair and +step d sigmoid(-2x) in the other, an input gate times a candidate; t w + b is
sigmoid(2x) (w + b) - sigmoid(-2x) (w - b), an output gate times a cell; and an output gate whose argument d shifts a little differs from
one that d shifts the other way by d times the gate's slope, (1 - t^2) / 4. `hand_set_theta` writes this down, `clone` finds it by
training: random edges, random x and d, the states that the cell itself has come to, plain Adam.

Legend: E edges side by side, N state size, M message size, A inputs, B outputs of a layer.

Source: Kirsch, Schmidhuber, 2021, "Meta learning backpropagation and improving it" (2012.14905), section 4.1 (learning algorithm cloning).
Differs: the layout of c, the hand-set solution, and edges trained alone instead of in networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.learners.per_weight.cell import LSTMCell, init_cell_theta, truncated_normal
from metaopt.learners.per_weight.dense import Dense, dense_layer
from metaopt.learners.per_weight.edge import EdgeState, Theta
from metaopt.learners.per_weight.network import NetworkSpec, fresh_state, present, stack_layers

__all__ = ["CloneCell", "CloneTraining", "clone", "clone_loss", "clone_network", "hand_set_theta", "update_cosine"]

_UNITS = 4  # of the state, which hold weight and bias
_OPEN = 16.0  # argument of a gate that stays open


@dataclass(frozen=True)
class CloneCell(LSTMCell):
    """An LSTM cell whose fresh state stores a random weight and no bias.

    Attributes:
        size: of what is stored, (0, inf): the smaller, the closer tanh(c) is to c, and the finer rounding shows.
    """

    size: float = 0.25

    def __post_init__(self) -> None:
        """Refuse a cell that cannot hold what is stored."""
        if self.spec.state < _UNITS or self.spec.layer_norm or not self.size > 0:
            raise ConfigError(f"a cloned cell needs state >= {_UNITS}, no layer_norm and size > 0, got {self.spec} and size {self.size}")

    def fresh(self, theta: Theta, key: Tensor, edges: Sequence[int], fan_in: int) -> EdgeState:
        """Return a state that stores truncated normals of variance 1 / fan_in as weights, and biases of 0."""
        weight = truncated_normal(key, edges, theta["bias"].dtype) * fan_in**-0.5
        return self.store(weight, torch.zeros_like(weight))

    def store(self, weight: Tensor, bias: Tensor) -> EdgeState:
        """Return the state of edges with these weights and biases [*edges]: 0 but for the entries that hold them."""
        pair = torch.stack([weight + bias, weight - bias], -1) * (self.size / 2.0)
        c = F.pad(torch.cat([pair, pair], -1), (0, self.spec.state - _UNITS))
        return {"h": torch.zeros_like(c), "c": c}

    def stored(self, state: EdgeState) -> tuple[Tensor, Tensor]:
        """Return (weights, biases), [*edges] each, of edges in any state: averages over the entries that hold them twice."""
        c = state["c"]
        plus, minus = (c[..., 0] + c[..., 2]) / self.size, (c[..., 1] + c[..., 3]) / self.size
        return 0.5 * (plus + minus), 0.5 * (plus - minus)


def clone_network(inputs: int, classes: int, hidden: tuple[int, ...] = (), ticks: int = 2) -> NetworkSpec:
    """Return the wiring under which cloned cells are online SGD on an MLP."""
    layers = stack_layers((inputs,), classes, hidden)
    return NetworkSpec(layers, ticks=ticks, schedule="forward_backward", reduce="sum", logit_bound=None)


def hand_set_theta(
    cell: CloneCell, step: float, ticks: int = 2, shift: float = 0.25, prefix: str = "cell.", seed: int = 0
) -> dict[str, Tensor]:
    """Return weights of a cell that imitates backpropagation up to second order in its size, in `shift` and in the step; float32.

    Units beyond the four begin with random inputs and are not read, so that training has something to switch on.

    Args:
        cell: at least four units, no layer norm.
        step: of SGD, [0, inf).
        ticks: micro-ticks of a sweep; each makes its part of the change.
        shift: by how much an error of 1 shifts output gates, (0, inf).
        prefix: of the names.
        seed: of the other units.
    """
    spec, n = cell.spec, cell.spec.state
    theta = init_cell_theta(spec, seed, prefix="")
    candidate, enter, keep, leave = (slice(k * n, k * n + _UNITS) for k in range(4))
    for name in ("forward_weight", "backward_weight", "state_weight", "bias"):
        for rows in (candidate, enter, keep, leave):
            theta[name][rows] = 0.0
    for name in ("forward_out", "backward_out", "state_weight"):
        theta[name].zero_()
    side = torch.tensor([1.0, -1.0, 1.0, -1.0])  # entries of w + b, and of w - b
    copy = torch.tensor([1.0, 1.0, -1.0, -1.0])
    theta["forward_weight"][enter, 0] = theta["forward_weight"][leave, 0] = 2.0 * side
    theta["backward_weight"][candidate, 0] = -cell.size * step / ticks * side
    theta["backward_weight"][leave, 0] = shift * copy
    theta["bias"][enter] = spec.input_bias
    theta["bias"][keep] = _OPEN - spec.forget_bias
    theta["forward_out"][:2, :_UNITS] = side / cell.size
    theta["backward_out"][0, :_UNITS] = 2.0 / (cell.size * shift) * copy
    return {f"{prefix}{name}": value for name, value in theta.items()}


@dataclass(frozen=True)
class CloneTraining:
    """How the cell is trained.

    Attributes:
        step: of the SGD that is cloned. Each edge has a bias of its own, so that a layer's is A times as fast: keep step * A below 2.
        ticks: micro-ticks of a sweep.
        edges: E, states that are advanced side by side.
        updates: of theta.
        rate: of Adam; falls to zero along a cosine.
        life: presentations after which an edge begins anew, on average, at the end of training; at its beginning 1.
        clip: norm of the gradient.
    """

    step: float = 0.1
    ticks: int = 2
    edges: int = 256
    updates: int = 4000
    rate: float = 6e-3
    life: float = 20.0
    clip: float = 1.0


def clone(
    cell: CloneCell, seed: int, training: CloneTraining | None = None, theta: Theta | None = None
) -> tuple[dict[str, Tensor], list[float]]:
    """Return (theta of the cell, with the prefix `cell.`; losses) after training from random weights, or from `theta`.

    Consumes the stream ("clone", seed).
    """
    training = CloneTraining() if training is None else training
    start = init_cell_theta(cell.spec, seed) if theta is None else theta
    weights = {name.removeprefix("cell."): value.detach().clone().requires_grad_() for name, value in start.items()}
    adam = torch.optim.Adam(weights.values(), training.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, training.updates)
    key = seeds.key("clone", seed)
    state, losses = _random_edges(cell, seeds.fold_in(key, training.updates), training.edges), []
    for k in range(training.updates):
        now = seeds.fold_in(key, k)
        loss, state = clone_loss(cell, weights, state, now, training.step, training.ticks)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(weights.values()), training.clip)
        adam.step()
        schedule.step()
        losses.append(float(loss.detach()))
        life = 1.0 + (training.life - 1.0) * k / training.updates
        state = _renewed(cell, state, seeds.fold_in(now, 9), 1.0 / life)
    return {f"cell.{name}": value.detach() for name, value in weights.items()}, losses


def clone_loss(cell: CloneCell, theta: Theta, state: EdgeState, key: Tensor, step: float, ticks: int) -> tuple[Tensor, EdgeState]:
    """Return (loss, state after one presentation, detached) of edges that stand alone.

    The mean square of four errors: the forward message, the backward one and the change of w and b in units of their error d and of the
    step. Channels that carry nothing should be 0, or layers above and below would hear them.

    Args:
        cell: the cell.
        theta: its weights, without a prefix.
        state: entries [E, 1, 1, N], detached.
        key: of the draws of x and d.
        step: of SGD.
        ticks: micro-ticks of a sweep.
    """
    weight, bias = cell.stored(state)
    x, d, unit = _random_messages(key, weight)
    copy = torch.where(seeds.uniform(seeds.fold_in(key, 3), x.shape) < 0.5, x, 0.0)  # inputs have none, hidden units do
    forward = F.pad(torch.stack([x, copy], -1).reshape(-1, 1, 2), (0, cell.message - 2))
    backward = F.pad(d.reshape(-1, 1, 1), (0, cell.message - 1))
    seen, up, _ = dense_layer(cell, theta, state, forward, torch.zeros_like(backward), ticks, "sum")
    after, _, down = dense_layer(cell, theta, seen, forward, backward, ticks, "sum")
    new_weight, new_bias = cell.stored(after)
    t = torch.tanh(x)
    wanted_up, wanted_down = t * weight + bias, weight * d * (1.0 - t * t)
    errors = (
        up[..., :2] - wanted_up.reshape(-1, 1, 1),
        (down[..., 0] - wanted_down.reshape(-1, 1)) / unit.reshape(-1, 1),
        ((new_weight - weight) / step + t * d) / unit,
        ((new_bias - bias) / step + d) / unit,
    )
    silence = up[..., 2:].square().sum(-1).mean() + down[..., 1:].square().sum(-1).mean()
    # Huber's loss: a state that ran away must not outweigh the others.
    total = sum(F.smooth_l1_loss(error, torch.zeros_like(error)) for error in errors) + silence
    return torch.as_tensor(total), {name: value.detach() for name, value in after.items()}


def update_cosine(cell: CloneCell, theta: Theta, spec: NetworkSpec, key: Tensor, presentations: int = 20) -> Tensor:
    """Return the cosine [presentations] between what a network of dense layers changes and the negative gradient of its loss.

    Labels are those of a random linear teacher. The network goes on from the states that it has come to, and the gradient is that of the
    MLP that its edges store at that moment.

    Args:
        cell, theta: with the prefix `cell.`.
        spec: as `clone_network` returns it.
        key: of data and fresh state.
        presentations: examples.
    """
    assert all(isinstance(layer, Dense) for layer in spec.layers), "the gradient is that of an MLP"
    inputs, dtype = spec.layers[0].edges[0], next(iter(theta.values())).dtype
    teacher = seeds.normal(seeds.fold_in(key, 0), (inputs, spec.classes), dtype)
    state, cosines = fresh_state(spec, cell, theta, seeds.fold_in(key, 1)), []
    for k in range(presentations):
        x = seeds.normal(seeds.fold_in(key, 2 + k), (1, inputs), dtype)
        y = (x @ teacher).argmax(-1)
        before = [cell.stored(state["edges"][name]) for name in spec.names]
        with torch.no_grad():
            state, _ = present(spec, cell, theta, state, x, y)
        after = [cell.stored(state["edges"][name]) for name in spec.names]
        change = torch.cat([(b - a).flatten() for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True)])
        cosines.append(F.cosine_similarity(change, -_gradient(before, x, y), 0))
    return torch.stack(cosines)


def _gradient(edges: list[tuple[Tensor, Tensor]], x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the cross-entropy by all weights and biases [1, A, B] of the layers, flat, in their order."""
    leaves = [value.detach().clone().requires_grad_() for pair in edges for value in pair]
    signal = x
    for weight, bias in zip(leaves[::2], leaves[1::2], strict=True):
        signal = (torch.tanh(signal).unsqueeze(-1) * weight + bias).sum(1)
    return torch.cat([value.flatten() for value in torch.autograd.grad(F.cross_entropy(signal, y), leaves)])


def _random_edges(cell: CloneCell, key: Tensor, count: int) -> EdgeState:
    """Return the state [E, 1, 1, N] of edges that store weights and biases of many sizes."""
    sizes = 10.0 ** (1.5 * seeds.uniform(seeds.fold_in(key, 0), (2, count, 1, 1)) - 1.5)
    weight, bias = sizes * seeds.normal(seeds.fold_in(key, 1), (2, count, 1, 1)).clamp(-2.0, 2.0)
    return cell.store(weight, bias)


def _random_messages(key: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (x, d, size of d), each of the shape of `like`; sizes of d are those of errors and of what comes down from them."""
    x = 1.2 * seeds.normal(seeds.fold_in(key, 0), like.shape)
    unit = 10.0 ** (seeds.uniform(seeds.fold_in(key, 1), like.shape) - 1.0)
    return x, unit * seeds.normal(seeds.fold_in(key, 2), like.shape).clamp(-2.0, 2.0), unit


def _renewed(cell: CloneCell, state: EdgeState, key: Tensor, rate: float) -> EdgeState:
    """Return the state with edges drawn anew with probability `rate`, and wherever one is not finite or holds a weight beyond 4."""
    count = state["c"].shape[0]
    weight, bias = cell.stored(state)
    lost = ~(torch.maximum(weight.abs(), bias.abs()) < 4.0).unsqueeze(-1)
    chosen = (seeds.uniform(seeds.fold_in(key, 0), (count, 1, 1, 1)) < rate) | lost
    fresh = _random_edges(cell, seeds.fold_in(key, 1), count)
    return {name: torch.where(chosen, fresh[name], value) for name, value in state.items()}
