"""Causal transformers over short sequences of symbols.

Legend: B batch, L sequence, V symbols, M width. Weights are [out, in], as in torch.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.models.parametrisation import check_parametrisation
from metaopt.tasks.models.parts import check_parts, linear, norm_params, normed, weight
from metaopt.tasks.models.sequence import embed, init_layer, symbol_vectors, transform
from metaopt.tasks.task import Params

__all__ = ["Transformer"]


@dataclass(frozen=True)
class Transformer:
    """Symbol and position vectors, pre-norm layers of causal attention, normalisation, one linear layer: logits of the next symbol.

    Attributes:
        length: longest sequence; every position has a learned vector.
        width: features of a position, a multiple of `heads`.
        hidden: width of the two-layer nets.
        parametrisation: "mu" (maximal update) makes good step sizes independent of width: biases are standard normal, the output layer
            begins at zero and what it gives is divided by the width, attention scores by the width of a head instead of its root, and
            `step_scales` divides the steps of all matrices between embeddings and output by their fan_in. Vectors of symbols keep the
            variance of an input of fan_in 1 (Yang et al., 2022, "Tensor Programs V", table 8), where muLO divides it by the width.

    Source: Radford et al., 2019, "Language Models are Unsupervised Multitask Learners", section 2.3. Differs: the output layer has weights
    of its own, and no layer's weights shrink with depth.
    """

    symbols: int
    length: int
    width: int
    heads: int
    hidden: int
    layers: int
    activation: str = "gelu"
    initialiser: str = "normal"
    norm: str = "layer_norm"
    parametrisation: str = "standard"
    embeddings: ClassVar[frozenset[str]] = frozenset({"embed.weight", "positions"})

    def __post_init__(self) -> None:
        check_parts(self.activation, self.initialiser, self.norm)
        check_parametrisation(self.parametrisation, self.initialiser)
        if self.width % self.heads:
            raise TaskError(f"Transformer heads must divide width, got {self.heads} for {self.width}")

    @property
    def step_scales(self) -> dict[str, float]:
        """Factors of the step size by parameter name; {} in the standard parametrisation."""
        fan_in = {"query": self.width, "key": self.width, "value": self.width, "out": self.width, "up": self.width, "down": self.hidden}
        layers = range(self.layers) if self.parametrisation == "mu" else ()
        return {f"layer{i}.{which}.weight": 1.0 / size for i in layers for which, size in fan_in.items()}

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights of the initialiser at `scale`, zero biases, unit gains, and positions of a tenth of the symbols' deviation."""
        params: Params = {
            "embed.weight": symbol_vectors(seeds.fold_in(key, 0), self.symbols, self.width, scale),
            "positions": symbol_vectors(seeds.fold_in(key, 1), self.length, self.width, 0.1 * scale),
        }
        mu = self.parametrisation == "mu"
        for i in range(self.layers):
            layer_key, name = seeds.fold_in(key, 3 + i), f"layer{i}"
            params |= init_layer(layer_key, name, self.width, self.hidden, self.norm, self.initialiser, scale, mu)
        params |= norm_params(self.norm, "norm", self.width, scale)
        head = weight(seeds.fold_in(key, 2), (self.symbols, self.width), scale, self.initialiser)
        params["head.weight"] = torch.zeros_like(head) if mu else head
        bias = seeds.normal(seeds.fold_in(key, 3 + self.layers), (self.symbols,), scale.dtype)
        params["head.bias"] = bias if mu else torch.zeros_like(bias)
        return params

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, L, V] of symbols [B, L]; those at a position depend on it and on earlier ones."""
        mu = self.parametrisation == "mu"
        hidden = embed(params, "embed", inputs) + params["positions"][: inputs.shape[-1]]
        for i in range(self.layers):
            hidden = transform(params, f"layer{i}", hidden, self.heads, self.activation, self.norm, causal=True, mu=mu)
        logits = linear(params, "head", normed(self.norm, params, "norm", hidden))
        return logits / self.width if mu else logits
