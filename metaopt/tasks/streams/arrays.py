"""A data set as a stream of batches.

Legend: B batch, D input features.
"""

import functools
from dataclasses import dataclass

from torch import Tensor

from metaopt import seeds
from metaopt.tasks.data.data_set import Source
from metaopt.tasks.task import Batch

__all__ = ["Examples"]

_HELDOUT_ROWS = 500  # at most so many are looked at: an evaluation sees all of them, for every particle


@functools.cache
def _tensors(source: Source, shape: tuple[int, ...]) -> Batch:
    """Return the tensors of a data set at one size; all tasks share them."""
    found = source.load().resized(shape)
    (train_x, train_y), (heldout_x, heldout_y) = found.train, found.heldout
    kept = slice(_HELDOUT_ROWS)
    return {"train_x": train_x, "train_y": train_y, "heldout_x": heldout_x[kept], "heldout_y": heldout_y[kept]}


@dataclass(frozen=True)
class Examples:
    """Batches of a data set's training examples, drawn with replacement.

    Attributes:
        source: the data set; it is read when `shared` is called.
        shape: of an example; images and sequences are brought to it by averaging over areas.
        batch_size: examples in a training batch, B.
    """

    source: Source
    shape: tuple[int, ...]
    batch_size: int

    def shared(self) -> Batch:
        """Return the data set as `train_x`, `train_y`, `heldout_x`, `heldout_y` (at most 500 examples); inputs are flat [rows, D]."""
        return dict(_tensors(self.source, self.shape))

    def batch(self, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return x [B, D], y [B], drawn with replacement from the training rows."""
        rows = seeds.randint(seeds.fold_in(key, step), (self.batch_size,), len(shared["train_y"]))
        return {"x": shared["train_x"][rows], "y": shared["train_y"][rows]}

    def heldout(self, shared: Batch) -> Batch:
        """Return all held-out rows."""
        return {"x": shared["heldout_x"], "y": shared["heldout_y"]}
