"""Recurrent networks that read symbols of one alphabet and answer in another.

Legend: B batch, L sequence, C classes.
"""

from dataclasses import dataclass

from torch import Tensor

from metaopt import seeds
from metaopt.tasks.models.parts import weight
from metaopt.tasks.models.recurrent import RecurrentNet
from metaopt.tasks.task import Params

__all__ = ["SequenceReader"]


@dataclass(frozen=True)
class SequenceReader:
    """A recurrent net whose output layer has one logit a class instead of one a symbol, at each position."""

    net: RecurrentNet
    classes: int

    @property
    def embeddings(self) -> frozenset[str]:
        """The names of the net's matrices whose rows are looked up."""
        return self.net.embeddings

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return the net's fresh weights, with an output layer of C rows."""
        head = weight(seeds.fold_in(key, 1), (self.classes, self.net.hidden), scale)
        return {**self.net.init(key, scale), "head.weight": head, "head.bias": scale.new_zeros(self.classes)}

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, L, C] of symbols [B, L]; those at a position depend on it and on earlier ones."""
        return self.net.apply(params, inputs)
