"""Streams: sources of labelled examples. A stream offers `shared` tensors, a training batch and a held-out batch.

Legend: B batch, D input features.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.tasks.task import Batch

__all__ = ["Digits"]

_HELDOUT_ROWS = 360  # of 1,797; the last rows, so that the split needs no seed


@functools.cache
def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    inputs_BD = torch.tensor(images, dtype=torch.float32) / 16.0
    return (inputs_BD - inputs_BD.mean()) / inputs_BD.std(), torch.tensor(labels, dtype=torch.int64)


@dataclass(frozen=True)
class Digits:
    """Scikit-learn's 1,797 grey digits of 8 x 8 pixels, standardised as a whole; 1,437 to train on, 360 held out.

    Source: Alpaydin, Kaynak, 1998, "Optical recognition of handwritten digits", UCI (as shipped inside scikit-learn).
    """

    batch_size: int
    features: int = 64
    classes: int = 10

    def shared(self) -> Batch:
        """Return the data set as `train_x`, `train_y`, `heldout_x`, `heldout_y`."""
        inputs, labels = _digits()
        cut = len(labels) - _HELDOUT_ROWS
        return {"train_x": inputs[:cut], "train_y": labels[:cut], "heldout_x": inputs[cut:], "heldout_y": labels[cut:]}

    def batch(self, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return x [B, D], y [B], drawn with replacement from the training rows."""
        rows = seeds.randint(seeds.fold_in(key, step), (self.batch_size,), len(shared["train_y"]))
        return {"x": shared["train_x"][rows], "y": shared["train_y"][rows]}

    def heldout(self, shared: Batch) -> Batch:
        """Return all held-out rows."""
        return {"x": shared["heldout_x"], "y": shared["heldout_y"]}
