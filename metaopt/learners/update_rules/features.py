"""Per-weight features and accumulators that learned rules share, and the small network that reads them.

Legend: F features, n weights of one tensor (flattened), H hidden units, O outputs. Feature-major [F, n], so that normalising a feature is a
change of one column of the first layer, and features that are the same for every weight are a change of its bias.
"""

import itertools
import math

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.learners.update_rules.rule import State, Theta

__all__ = [
    "TIME_SCALES",
    "Decays",
    "factored_moments",
    "init_factored",
    "moving_average",
    "network",
    "random_network",
    "signal_path",
    "silent_output",
    "time_features",
]

# Weights whose hidden activations stay in a CPU core's cache; larger tensors go through the network in pieces.
_CPU_COLUMNS = 1 << 14

Decays = tuple[float, ...] | Tensor  # constants, or [K] where they are learned

TIME_SCALES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)


def moving_average(state: Tensor, value: Tensor, decays: Decays) -> Tensor:
    """Return decay * state + (1 - decay) * value for each decay; state [len(decays), *shape], value [*shape]."""
    decay = decays if isinstance(decays, Tensor) else torch.tensor(decays, dtype=value.dtype, device=value.device)
    decay = decay.reshape(-1, *[1] * value.dim())
    return decay * state + (1 - decay) * value


def time_features(t: Tensor, dtype: torch.dtype) -> Tensor:
    """Return tanh(t / c - 1) for the eleven time scales c, [11]; the first update has t = 0.

    Source: Metz et al., 2022, "Practical tradeoffs ...", appendix (learned optimizer features).
    """
    scales = torch.tensor(TIME_SCALES, dtype=dtype, device=t.device)
    return torch.tanh(t.to(dtype) / scales - 1.0)


def factored_axes(shape: torch.Size) -> tuple[int, int]:
    """Return (largest, second largest) axis of a shape of rank >= 2, ties by index as a stable ascending sort orders them."""
    order = sorted(range(len(shape)), key=lambda axis: shape[axis])
    return order[-1], order[-2]


def init_factored(param: Tensor, count: int) -> State:
    """Return zero row and column accumulators for `count` decays; a tensor of rank <= 1 has one dense accumulator, `row`."""
    if param.dim() < 2:
        return {"row": param.new_zeros((count, *param.shape))}
    d0, d1 = factored_axes(param.shape)
    shape = list(param.shape)
    row, column = [s for a, s in enumerate(shape) if a != d0], [s for a, s in enumerate(shape) if a != d1]
    return {"row": param.new_zeros((count, *row)), "column": param.new_zeros((count, *column))}


def factored_moments(grad: Tensor, state: State, decays: Decays, dense_floor: float = 0.0) -> tuple[State, Tensor, Tensor, Tensor]:
    """Return (state, factor, row, column): `factor` [K, *shape] approximates 1 / sqrt(second moment) for each of K decays.

    `row` and `column` are the accumulators expanded to [K, *shape]. For rank <= 1 both are the dense second moment, of squares plus
    `dense_floor`.

    Source: Shazeer, Stern, 2018, "Adafactor", algorithm 4, in the form of Metz et al., 2022, "Practical tradeoffs ...".
    """
    if grad.dim() < 2:
        dense = moving_average(state["row"], grad * grad + dense_floor if dense_floor else grad * grad, decays)
        return {"row": dense}, torch.rsqrt((dense + 1e-9).clamp(min=1e-9)), dense, dense
    d0, d1 = factored_axes(grad.shape)
    square = grad * grad + 1e-30
    row = moving_average(state["row"], square.mean(d0), decays)
    column = moving_average(state["column"], square.mean(d1), decays)
    mean = row.mean(1 + (d1 if d1 < d0 else d1 - 1), keepdim=True)  # over d1's place among the axes that `row` keeps
    row_factor = torch.rsqrt((row / (mean + 1e-9)).clamp(min=1e-9)).unsqueeze(1 + d0)
    column_factor = torch.rsqrt(column.clamp(min=1e-9)).unsqueeze(1 + d1)
    shape = (len(decays), *grad.shape)
    return (
        {"row": row, "column": column},
        row_factor * column_factor,
        row.unsqueeze(1 + d0).expand(shape),
        column.unsqueeze(1 + d1).expand(shape),
    )


def random_network(sizes: tuple[int, ...], seed: int) -> Theta:
    """Return `w0, b0, w1, ...`: weights [out, in] normal with deviation 1 / sqrt(fan_in), clamped at two of them; biases zero."""
    theta: Theta = {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        draw = seeds.normal(seeds.key("rule", seed, i), (fan_out, fan_in)).clamp(-2.0, 2.0)
        theta[f"w{i}"] = draw / math.sqrt(fan_in)
        theta[f"b{i}"] = torch.zeros(fan_out)
    return theta


def signal_path(theta: Theta, feature: int) -> Theta:
    """Return the network with output 0 equal to one feature exactly, and every other output zero.

    Two hidden units carry +x and -x through each layer, relu(x) - relu(-x) = x. The other units keep their random weights, cut off from
    the output, so that meta-training has something to switch on.
    """
    out = {name: value.clone() for name, value in theta.items()}
    layers = len([name for name in out if name.startswith("w")])
    for i in range(layers):
        weight = out[f"w{i}"]
        if i == layers - 1:
            weight.zero_()
            weight[0, 0], weight[0, 1] = 1.0, -1.0
            continue
        weight[:2] = 0.0
        source = (feature, feature) if i == 0 else (0, 1)
        signs = (1.0, -1.0) if i == 0 else (1.0, 1.0)
        for unit in range(2):
            weight[unit, source[unit]] = signs[unit]
    return out


def silent_output(theta: Theta) -> Theta:
    """Return the network with weights and biases of its last layer zero: every output is 0, whatever the hidden layers compute."""
    last = max(int(name[1:]) for name in theta if name.startswith("w"))
    return {name: torch.zeros_like(value) if name in (f"w{last}", f"b{last}") else value for name, value in theta.items()}


def network(theta: Theta, features: Tensor, scale: Tensor, constants: Tensor | None = None) -> Tensor:
    """Return the outputs [O, n] of a ReLU network on features * scale, with `constants` appended to the input of every weight.

    Args:
        theta: `w0` [H, F + len(constants)], `b0` [H], and so on.
        features: [F', n] with F' <= F; a tensor that lacks the last features uses the first columns.
        scale: [F'], multiplies the features (their normalisation).
        constants: features that are the same for every weight, e.g. time.
    """
    if features.shape[1] > _CPU_COLUMNS and features.device.type == "cpu":
        pieces = torch.split(features, _CPU_COLUMNS, dim=1)
        return torch.cat([network(theta, piece, scale, constants) for piece in pieces], dim=1)
    count = features.shape[0]
    weight, bias = theta["w0"], theta["b0"]
    if constants is not None:
        bias = bias + weight[:, -constants.shape[0] :] @ constants
    hidden = (weight[:, :count] * scale) @ features + bias.unsqueeze(-1)
    for i in range(1, len(theta) // 2):
        if f"w{i}" not in theta:
            break
        hidden = theta[f"w{i}"] @ torch.relu(hidden) + theta[f"b{i}"].unsqueeze(-1)
    return hidden
