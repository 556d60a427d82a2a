"""The table of a group operation: all pairs of numbers modulo p, a share of them to train on, all of those in every batch.

Legend: N training pairs, R held-out pairs.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.task import Batch

__all__ = ["OPERATIONS", "Pairs"]

OPERATIONS = ("plus", "times")
_HELDOUT_ROWS = 500  # at most so many are looked at: an evaluation sees all of them, for every particle


@dataclass(frozen=True)
class Pairs:
    """Pairs (a, b) of residues modulo p and their class: a + b of all residues, or a * b of those above 0.

    Which pairs are trained on is drawn once for each modulus and operation: a larger share holds the pairs of a smaller one.

    Attributes:
        modulus: p, a prime for "times": the residues above 0 are then a group too.
        operation: one of `OPERATIONS`.
        share_percent: of the pairs that are trained on, in (0, 100).

    Source: Power et al., 2022, "Grokking: generalization beyond overfitting on small algorithmic datasets", section 2.
    """

    modulus: int
    operation: str
    share_percent: int

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise TaskError(f"Pairs operation must be one of {', '.join(OPERATIONS)}, got {self.operation!r}")
        if self.modulus < 3 or not 0 < self.share_percent < 100:
            raise TaskError(f"Pairs need a modulus >= 3 and a share in (0, 100) percent, got {self.modulus} and {self.share_percent}")

    def shared(self) -> Batch:
        """Return `train_x` [N, 2], `train_y` [N], `heldout_x` [R, 2] and `heldout_y` [R], R at most 500; all int64."""
        return dict(_table(self))

    def batch(self, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return all training pairs, whatever the key and the step."""
        return {"x": shared["train_x"], "y": shared["train_y"]}

    def heldout(self, shared: Batch) -> Batch:
        """Return the held-out pairs."""
        return {"x": shared["heldout_x"], "y": shared["heldout_y"]}


@functools.cache
def _table(pairs: Pairs) -> Batch:
    """Return the two parts of the table; all tasks share them."""
    residues = torch.arange(0 if pairs.operation == "plus" else 1, pairs.modulus)
    x = torch.cartesian_prod(residues, residues)
    y = (x.sum(-1) if pairs.operation == "plus" else x.prod(-1)) % pairs.modulus
    order = seeds.uniform(seeds.key("pairs", pairs.modulus, pairs.operation), (len(y),), torch.float64).argsort(stable=True)
    cut = round(len(y) * pairs.share_percent / 100)
    train, heldout = order[:cut], order[cut : cut + _HELDOUT_ROWS]
    return {"train_x": x[train], "train_y": y[train], "heldout_x": x[heldout], "heldout_y": y[heldout]}
