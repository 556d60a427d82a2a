"""What several tests of per-weight networks share: ordinary networks in plain torch, and analytic ones with given weights."""

import torch
from torch import Tensor
from torch.nn import functional as F

from metaopt.learners.per_weight.conv import Conv
from metaopt.learners.per_weight.dense import Dense
from metaopt.learners.per_weight.edge import Cell, EdgeState, Reduce
from metaopt.learners.per_weight.network import NetworkSpec, NetworkState, present

Layers = tuple[Dense | Conv, ...]
Schedule = str
STEPS = 20


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights_of(layers: Layers) -> list[Tensor]:
    """Initial weights [*edges], large enough to bend every tanh."""
    return [draw(*layer.edges, seed=10 + k) * 1.5 * layer.fan_in**-0.5 for k, layer in enumerate(layers)]


def stream(features: int, classes: int, examples: int = 1, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Inputs [steps, Bx, F] and labels [steps, Bx]."""
    ys = torch.randint(0, classes, (steps, examples), generator=torch.Generator().manual_seed(3))
    return draw(steps, examples, features, seed=4), ys


def network_state(spec: NetworkSpec, weights: list[Tensor], entries: tuple[str, ...], examples: int = 1) -> NetworkState:
    """The state of an analytic network with given weights that has seen nothing."""
    edges: dict[str, EdgeState] = {}
    for name, weight in zip(spec.names, weights, strict=True):
        full = weight.unsqueeze(-1).expand(examples, *weight.shape, 1)
        edges[name] = {"weight": full} | {entry: torch.zeros_like(full) for entry in entries}
    return {"edges": edges, "backward": no_messages(spec, 2, examples)}


def no_messages(spec: NetworkSpec, message: int, examples: int = 1) -> dict[str, Tensor]:
    if spec.schedule == "forward_backward":
        return {}
    layers = zip(spec.names, spec.layers, strict=True)
    return {name: torch.zeros(examples, *layer.output_shape, message, dtype=torch.float64) for name, layer in layers}


def backprop_spec(layers: Layers, reduce: Reduce = "sum") -> NetworkSpec:
    """What makes the backprop cell exact."""
    return NetworkSpec(layers, ticks=1, schedule="forward_backward", reduce=reduce, logit_bound=None, tied=False)


def backprop_theta(steps: list[float]) -> dict[str, Tensor]:
    theta = {}
    for k, step in enumerate(steps):
        theta[f"layer{k}.step"] = torch.tensor(step, dtype=torch.float64)
        theta[f"layer{k}.raw"] = torch.tensor(float(k == 0), dtype=torch.float64)
    return theta


def run(
    spec: NetworkSpec, cell: Cell, theta: dict[str, Tensor], state: NetworkState, xs: Tensor, ys: Tensor
) -> tuple[NetworkState, Tensor]:
    """The state after a stream, and the logits [steps, Bx, C] on the way."""
    seen = []
    for x, y in zip(xs, ys, strict=True):
        state, logits = present(spec, cell, theta, state, x, y)
        seen.append(logits)
    return state, torch.stack(seen)


def ordinary_layer(layer: Dense | Conv, weight: Tensor, x: Tensor, mean: bool) -> Tensor:
    """What the layer would compute as an ordinary one: [Bx, *input_shape] -> [Bx, *output_shape]."""
    x = x.reshape(len(x), *layer.input_shape)
    if isinstance(layer, Dense):
        return x @ weight / (layer.fan_in if mean else 1)
    low, high = layer.kernel // 2, layer.kernel - 1 - layer.kernel // 2
    padded = F.pad(x.permute(0, 3, 1, 2), (low, high, low, high))
    return F.conv2d(padded, weight.permute(3, 2, 0, 1), stride=layer.stride).permute(0, 2, 3, 1)


def sgd(
    layers: Layers, weights: list[Tensor], steps: list[float], xs: Tensor, ys: Tensor, mean: bool = False
) -> tuple[list[Tensor], Tensor]:
    """Weights after, and logits before each step of, minibatch SGD by autograd with a step size a layer; tanh between layers."""
    weights, seen = [w.clone().requires_grad_() for w in weights], []
    for x, y in zip(xs, ys, strict=True):
        signal = x
        for k, (layer, weight) in enumerate(zip(layers, weights, strict=True)):
            signal = ordinary_layer(layer, weight, torch.tanh(signal) if k else signal, mean)
        seen.append(signal.detach())
        grads = torch.autograd.grad(F.cross_entropy(signal, y), weights)
        weights = [(w - step * g).detach().requires_grad_() for w, g, step in zip(weights, grads, steps, strict=True)]
    return [w.detach() for w in weights], torch.stack(seen)


def gap(state: NetworkState, logits: Tensor, weights: list[Tensor], wanted: Tensor) -> float:
    """Largest difference of the logits on the way and of the weights at the end; a shared weight is the mean over examples."""
    pairs = zip(state["edges"].values(), weights, strict=True)
    ends = [(entries["weight"].mean(0).squeeze(-1) - weight).abs().max() for entries, weight in pairs]
    return float(torch.stack([(logits - wanted).abs().max(), *ends]).max())
