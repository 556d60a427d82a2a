"""Trees of meta-parameters as the JAX releases of learned optimizers save them, with random numbers, and their rules in plain numpy.

The numpy is written in the conventions of those releases: weights [in, out], features and decays on the last axis.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Tree = dict[str, Any]
TIMES = np.array([1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000, 100000])
GROUPS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)


def draw(*shape: int, seed: int = 0) -> Array:
    """Return numbers of deviation 0.3, different for every shape and seed."""
    return (0.3 * np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(np.float32)


def linear(inputs: int, outputs: int, seed: int = 0) -> Tree:
    """Return a linear layer of haiku."""
    return {"w": draw(inputs, outputs, seed=seed), "b": draw(outputs, seed=seed)}


def mlp_tree(hidden: int = 5) -> Tree:
    """Return the tree of the per-parameter MLP."""
    sizes = (19, hidden, hidden, 2)
    return {f"mlp/~/linear_{i}": linear(sizes[i], sizes[i + 1], seed=i) for i in range(3)}


def small_fc_tree(hidden: int = 4) -> Tree:
    """Return the tree of the Adafactor MLP."""
    sizes = (39, hidden, hidden, 2)
    network = {f"{kind}{i}": linear(sizes[i], sizes[i + 1], seed=i)[kind] for i in range(3) for kind in ("w", "b")}
    offsets = {"momentum_decays": 0.1 * draw(3), "rms_decays": 0.1 * draw(1), "adafactor_decays": 0.1 * draw(3, seed=1)}
    return {**offsets, "nn": {"~": network}}


def rnn_mlp_tree(units: int = 6, hidden: int = 7) -> Tree:
    """Return the tree of the RNN-MLP."""
    sizes = (54, hidden, hidden, 18)
    return {
        "initial_from_lstm": draw(18),
        "initial_from_mlp": draw(16),
        "lstm_init_state": {"hidden": draw(1, units), "cell": draw(1, units, seed=1)},
        "rnn_params": {"rnn/linear": linear(52 + units, 4 * units)},
        "rnn_to_ff_params": {"rnn_to_ff": linear(units, 17)},
        "rnn_to_in_params": {"rnn_to_in": linear(units, 18)},
        "ffmod_params": {f"mlp/~/linear_{i}": linear(sizes[i], sizes[i + 1], seed=i) for i in range(3)},
    }


def velo_tree(units: int = 6, networks: int = 3, inputs: int = 30, hidden: int = 4) -> Tree:
    """Return the tree of VeLO; with 18 inputs and one network that of Celo."""
    layers = {f"linear{tail}": linear(inputs, units, seed=i) for i, tail in enumerate(("", "_1", "_2"))}
    stack = {f"w0__{i}": draw(networks, width, hidden, seed=i) for i, width in enumerate(GROUPS)}
    for i, (fan_in, fan_out) in enumerate(((0, hidden), (hidden, hidden), (hidden, 3))):
        stack[f"b{i}"] = draw(networks, fan_out, seed=i)
        if fan_in:
            stack[f"w{i}"] = draw(networks, fan_in, fan_out, seed=i)
    readouts = {"rnn_to_controls": linear(units, networks, seed=3), "step_size": linear(units, 1, seed=4)}
    return {
        "lstm_init_state": {"hidden": draw(1, units), "cell": draw(1, units, seed=1)},
        "rnn_params": {**layers, "rnn/linear": linear(2 * units, 4 * units), **readouts},
        "ff_mod_stack": {"~": stack},
    }


def celo_tree(units: int = 6) -> Tree:
    """Return the tree of Celo."""
    return velo_tree(units, networks=1, inputs=18)


def celo_adam_tree(units: int = 6) -> Tree:
    """Return the tree of Celo-Adam, which has no network and no coefficients of networks."""
    tree = celo_tree(units)
    return {
        "lstm_init_state": tree["lstm_init_state"],
        "rnn_params": {name: layer for name, layer in tree["rnn_params"].items() if name != "rnn_to_controls"},
    }


TREES = {
    "mlp": mlp_tree,
    "small_fc": small_fc_tree,
    "rnn_mlp": rnn_mlp_tree,
    "velo": velo_tree,
    "celo": celo_tree,
    "celo_adam": celo_adam_tree,
}


def network(layers: list[tuple[Array, Array]], features: Array) -> Array:
    """Return features @ w + b through a ReLU network, on the last axis."""
    for i, (weight, bias) in enumerate(layers):
        features = features @ weight.astype(np.float64) + bias
        if i < len(layers) - 1:
            features = np.maximum(features, 0)
    return features


def step_of(layers: list[tuple[Array, Array]], groups: list[Array], t: int) -> Array:
    """Return the step of one tensor: features normalised over all of it, time appended, direction * exp(magnitude)."""
    features = np.concatenate(groups, -1)
    axes = tuple(range(features.ndim - 1))
    features = features / np.sqrt(1e-5 + np.mean(features**2, axes, keepdims=True))
    time = np.broadcast_to(np.tanh(t / TIMES - 1.0), (*features.shape[:-1], 11))
    out = network(layers, np.concatenate([features, time], -1))
    return 1e-3 * out[..., 0] * np.exp(1e-3 * out[..., 1])


class NumpyMLP:
    """The per-parameter MLP of one tensor, float64."""

    def __init__(self, tree: Tree, shape: tuple[int, ...]) -> None:
        self.layers = [(tree[f"mlp/~/linear_{i}"]["w"], tree[f"mlp/~/linear_{i}"]["b"]) for i in range(3)]
        self.m = np.zeros((*(shape or (1,)), 6))
        self.t = 0

    def step(self, p: Array, g: Array) -> Array:
        """Return the step of one update."""
        p, g, decays = np.atleast_1d(p), np.atleast_1d(g), np.array([0.1, 0.5, 0.9, 0.99, 0.999, 0.9999])
        self.m = decays * self.m + (1 - decays) * g[..., None]
        self.t += 1
        return step_of(self.layers, [g[..., None], p[..., None], self.m], self.t - 1)


class NumpySmallFC:
    """The Adafactor MLP of one tensor of rank 0 to 2, float64."""

    def __init__(self, tree: Tree, shape: tuple[int, ...]) -> None:
        net = tree["nn"]["~"]
        self.layers = [(net[f"w{i}"], net[f"b{i}"]) for i in range(3)]
        starts = {"momentum_decays": [0.9, 0.99, 0.999], "rms_decays": [0.999], "adafactor_decays": [0.9, 0.99, 0.999]}
        units = {name: np.log(1 - np.array(start)) / 10 + tree[name] for name, start in starts.items()}
        self.momentum, self.rms, self.factored = (np.clip(1 - np.exp(10 * unit), 0, 1) for unit in units.values())
        shape = shape or (1,)
        self.m, self.v = np.zeros((*shape, 3)), np.zeros((*shape, 1))
        self.dense = np.zeros((*shape, 3))
        # The two largest axes, as a stable ascending sort has them: one accumulator lacks the largest, the other the second.
        self.second, self.largest = np.argsort(shape, kind="stable")[-2:] if len(shape) > 1 else (None, None)
        self.row = self.column = np.zeros(())
        self.t = 0

    def step(self, p: Array, g: Array) -> Array:
        """Return the step of one update."""
        p, g = np.atleast_1d(p), np.atleast_1d(g)
        self.m = self.momentum * self.m + (1 - self.momentum) * g[..., None]
        self.v = self.rms * self.v + (1 - self.rms) * g[..., None] ** 2
        root = 1 / np.sqrt(self.v + 1e-6)
        square, b = g[..., None] ** 2, self.factored
        if g.ndim < 2:
            self.dense = b * self.dense + (1 - b) * square
            row = column = self.dense
            gradient = g[..., None] / np.sqrt(np.maximum(self.dense + 1e-9, 1e-9))
            momentum = self.m / np.sqrt(self.dense + 1e-6)
        else:
            self.row = b * self.row + (1 - b) * np.mean(square + 1e-30, self.largest, keepdims=True)
            self.column = b * self.column + (1 - b) * np.mean(square + 1e-30, self.second, keepdims=True)
            mean = np.mean(self.row, self.second, keepdims=True)
            factor = 1 / np.sqrt(np.maximum(self.row / (mean + 1e-9), 1e-9)) / np.sqrt(np.maximum(self.column, 1e-9))
            row, column = (np.broadcast_to(value, (*g.shape, 3)) for value in (self.row, self.column))
            gradient, momentum = g[..., None] * factor, self.m * factor
        roots = [1 / np.sqrt(row + 1e-8), 1 / np.sqrt(column + 1e-8)]
        groups = [g[..., None], p[..., None], self.m, self.v, self.m * root, root, gradient, row, column, *roots, momentum]
        self.t += 1
        return step_of(self.layers, groups, self.t - 1)
