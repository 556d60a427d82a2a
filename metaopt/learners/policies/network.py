"""The network of a hyperparameter policy: normaliser, 256, layer-normalised LSTM 256, 256, one head a hyperparameter.

    x = relu(encode(normalised))     h = LSTM(x)     y = x + h     z = y + relu(mix(y))     logits = heads(z)

Both sums are residual: a decision that needs no memory reaches the heads without passing the cell.

A whole batch of episodes goes through `forward` or, without padding, through `packed_features`; a run that is under way takes `step`.

Legend: [...] leading dims, T decisions, E episodes, N packed rows, I inputs, H hidden units, A heads, L = sum(nvec) logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.learners.policies.heads import entropy, greedy, head_entropy, log_prob, sample, split_heads
from metaopt.learners.policies.knobs import KNOBS, TABLES
from metaopt.learners.policies.lstm import LayerNormLSTM, LSTMState, lstm_sequences
from metaopt.learners.policies.normaliser import Normaliser
from metaopt.learners.policies.observation import INPUTS
from metaopt.names import nearest

__all__ = [
    "NetworkShape",
    "PolicyNetwork",
    "PolicySpec",
    "Shape",
    "Trunk",
    "entropy",
    "greedy",
    "head_entropy",
    "initial_state",
    "linear",
    "log_prob",
    "packed_features",
    "sample",
    "split_heads",
]

HEAD_GAIN = 0.01  # a fresh policy chooses about uniformly
INNER = ("adamw", "unitless_adam")


class Shape(Protocol):
    """What a network needs to know to be built."""

    @property
    def inputs(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def nvec(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class NetworkShape:
    """A network for any environment: sizes, and nothing about hyperparameters."""

    inputs: int
    hidden: int
    nvec: tuple[int, ...]


@dataclass(frozen=True)
class PolicySpec:
    """All that is fixed about a hyperparameter policy but its weights; plain data.

    Attributes:
        table: name of the table of relative changes.
        hidden: H.
        knobs: hyperparameters that it has learned to turn; others are always masked.
        registers: whether it has learned to use the checkpoint registers.
        inner: the inner optimizers that it was trained on.
        inputs: I.
    """

    table: str = "wide"
    hidden: int = 256
    knobs: tuple[str, ...] = KNOBS
    registers: bool = True
    inner: tuple[str, ...] = INNER
    inputs: int = INPUTS

    def __post_init__(self) -> None:
        for field, given, known in (
            ("table", (self.table,), tuple(TABLES)),
            ("knobs", self.knobs, KNOBS),
            ("inner", self.inner, INNER),
        ):
            for name in given:
                if name not in known:
                    raise ConfigError(f"policy.{field}: unknown {name!r}{nearest(name, known)}")
        for field, size in (("hidden", self.hidden), ("inputs", self.inputs)):
            if size < 1:
                raise ConfigError(f"policy.{field} must be at least 1, got {size}")

    @property
    def nvec(self) -> tuple[int, ...]:
        """Choices of each head, registers first."""
        return TABLES[self.table].nvec


def linear(inputs: int, outputs: int, gain: float, key: Tensor) -> nn.Linear:
    layer: nn.Linear = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")  # else it draws from the global generator
    with torch.no_grad():
        layer.weight.copy_(seeds.normal(key, (outputs, inputs)) * (gain * inputs**-0.5))
        layer.bias.zero_()
    return layer


class Trunk(nn.Module):
    """From normalised inputs to features; policy and critic have one each.

    Args:
        inputs: I.
        hidden: H.
        key: the initial weights are a function of it.
    """

    def __init__(self, inputs: int, hidden: int, key: Tensor) -> None:
        super().__init__()
        self.hidden = hidden
        self.encode = linear(inputs, hidden, 2**0.5, seeds.fold_in(key, 0))
        self.lstm = LayerNormLSTM(hidden, hidden, seeds.fold_in(key, 1))
        self.mix = linear(hidden, hidden, 2**0.5, seeds.fold_in(key, 2))

    def step(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Return features [..., H] of normalised inputs [..., I] at one decision, and the state after it."""
        x = self.encode(x).relu()
        state = self.lstm.step(x, state)
        return self.features(x, state[0]), state

    def features(self, x: Tensor, h: Tensor) -> Tensor:
        """Return what heads read, [..., H], from encoded inputs and the LSTM's outputs."""
        y = x + h
        mixed: Tensor = self.mix(y)
        return y + mixed.relu()


def packed_features(
    trunks: Sequence[Trunk], inputs: Sequence[Tensor], states: Sequence[LSTMState], sizes: Sequence[int]
) -> list[tuple[Tensor, LSTMState]]:
    """Return, for each trunk, features [N, H] of its packed normalised inputs [N, I], and the last state (see `lstm.lstm_sequences`)."""
    encoded = [trunk.encode(x).relu() for trunk, x in zip(trunks, inputs, strict=True)]
    outputs = lstm_sequences([trunk.lstm for trunk in trunks], encoded, states, sizes)
    return [(trunk.features(x, h), state) for trunk, x, (h, state) in zip(trunks, encoded, outputs, strict=True)]


def initial_state(hidden: int, batch_shape: tuple[int, ...], like: Tensor) -> LSTMState:
    """Return the zero state (h, c), each [*batch_shape, H], of `like`'s dtype and device."""
    zeros = like.new_zeros((*batch_shape, hidden))
    return zeros, zeros.clone()


class PolicyNetwork(nn.Module):
    """From observations to the logits of all heads.

    Args:
        spec: a `PolicySpec`, or a `NetworkShape` for other environments.
        key: the initial weights are a function of it.
    """

    def __init__(self, spec: Shape, key: Tensor) -> None:
        super().__init__()
        self.spec = spec
        self.nvec = tuple(spec.nvec)
        self.normaliser = Normaliser(spec.inputs)
        self.trunk = Trunk(spec.inputs, spec.hidden, seeds.fold_in(key, 0))
        self.heads = linear(spec.hidden, sum(self.nvec), HEAD_GAIN, seeds.fold_in(key, 1))

    def initial_state(self, batch_shape: tuple[int, ...] = ()) -> LSTMState:
        """Return the state (h, c) before the first decision, each [*batch_shape, H], zeros."""
        return initial_state(self.trunk.hidden, batch_shape, self.heads.bias)

    def forward(self, pi: Tensor, state: LSTMState | None = None, reset: Tensor | None = None) -> tuple[Tensor, LSTMState]:
        """Return logits [T, E, L] and the state after the last decision.

        Args:
            pi: raw observations, [T, E, I]; normalised in here, with frozen statistics.
            state: (h, c) before the first decision, each [E, H]; None: zeros.
            reset: [T, E] bool, True where an episode begins, so that its state is zero before the decision.
        """
        steps, episodes = pi.shape[:2]
        state = self.initial_state((episodes,)) if state is None else state
        if reset is None:
            ((z, state),) = packed_features([self.trunk], [self.normaliser(pi).flatten(0, 1)], [state], [episodes] * steps)
            return self.heads(z).unflatten(0, (steps, episodes)), state
        logits = []
        for pi_t, reset_t in zip(pi, reset, strict=True):
            h, c = (torch.where(reset_t.unsqueeze(-1), 0.0, part) for part in state)
            logits_t, state = self.step(pi_t, (h, c))
            logits.append(logits_t)
        return torch.stack(logits), state

    def step(self, pi: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Return logits [..., L] of raw observations [..., I] at one decision, and the state after it.

        Plain operations: differentiable any number of times, under `torch.func.vmap` and `functional_call`.
        """
        z, state = self.trunk.step(self.normaliser(pi), state)
        return self.heads(z), state
