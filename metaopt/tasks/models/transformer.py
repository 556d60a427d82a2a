"""Causal transformers over short sequences of symbols.

Legend: B batch, L sequence, V symbols, M width. Weights are [out, in], as in torch.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
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
    embeddings: ClassVar[frozenset[str]] = frozenset({"embed.weight", "positions"})

    def __post_init__(self) -> None:
        check_parts(self.activation, self.initialiser, self.norm)
        if self.width % self.heads:
            raise TaskError(f"Transformer heads must divide width, got {self.heads} for {self.width}")

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights of the initialiser at `scale`, zero biases, unit gains, and positions of a tenth of the symbols' deviation."""
        params: Params = {
            "embed.weight": symbol_vectors(seeds.fold_in(key, 0), self.symbols, self.width, scale),
            "positions": symbol_vectors(seeds.fold_in(key, 1), self.length, self.width, 0.1 * scale),
        }
        for i in range(self.layers):
            params |= init_layer(seeds.fold_in(key, 3 + i), f"layer{i}", self.width, self.hidden, self.norm, self.initialiser, scale)
        params |= norm_params(self.norm, "norm", self.width, scale)
        params["head.weight"] = weight(seeds.fold_in(key, 2), (self.symbols, self.width), scale, self.initialiser)
        params["head.bias"] = scale.new_zeros(self.symbols)
        return params

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, L, V] of symbols [B, L]; those at a position depend on it and on earlier ones."""
        hidden = embed(params, "embed", inputs) + params["positions"][: inputs.shape[-1]]
        for i in range(self.layers):
            hidden = transform(params, f"layer{i}", hidden, self.heads, self.activation, self.norm, causal=True)
        return linear(params, "head", normed(self.norm, params, "norm", hidden))
