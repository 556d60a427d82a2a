"""Networks that answer a short sequence of symbols with one symbol.

Legend: B batch, L sequence, V symbols, E features of a symbol's vector.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metaopt import seeds
from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.models.sequence import embed, symbol_vectors
from metaopt.tasks.models.transformer import Transformer
from metaopt.tasks.task import Params

__all__ = ["LastPosition", "SummedSymbols"]


@dataclass(frozen=True)
class LastPosition:
    """A causal transformer's logits at the last position, which sees the whole sequence."""

    net: Transformer

    @property
    def embeddings(self) -> frozenset[str]:
        """The names of the net's matrices whose rows are looked up."""
        return self.net.embeddings

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return the net's fresh weights."""
        return self.net.init(key, scale)

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, V] of symbols [B, L]."""
        return self.net.apply(params, inputs)[..., -1, :]


@dataclass(frozen=True)
class SummedSymbols:
    """The sum of the symbols' learned vectors through a network with one hidden layer: it cannot tell the order of symbols.

    Attributes:
        symbols: V.
        features: E.
        hidden: width of the hidden layer.
    """

    symbols: int
    features: int
    hidden: int
    activation: str = "relu"
    embeddings: ClassVar[frozenset[str]] = frozenset({"embed.weight"})

    @property
    def net(self) -> MLP:
        """What is above the vectors."""
        return MLP((self.features, self.hidden, self.symbols), self.activation)

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return vectors with standard deviation `scale` and the net's fresh weights."""
        vectors = symbol_vectors(seeds.fold_in(key, 0), self.symbols, self.features, scale)
        return {"embed.weight": vectors, **self.net.init(seeds.fold_in(key, 1), scale)}

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, V] of symbols [B, L]."""
        return self.net.apply(params, embed(params, "embed", inputs).sum(-2))
