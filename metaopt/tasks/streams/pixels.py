"""A stream of pixels without labels, for models that reconstruct them.

Legend: B batch, D pixels (channels x height x width).
"""

from dataclasses import dataclass

from torch import Tensor

from metaopt import seeds
from metaopt.tasks.data.data_set import Source
from metaopt.tasks.task import Batch

__all__ = ["Pixels"]

_HELDOUT_ROWS = 256  # enough to compare runs; an evaluation should not cost many training steps


@dataclass(frozen=True)
class Pixels:
    """Images of a data set, standardised, or with intensities in [0, 1] where a loss reads them as probabilities.

    Attributes:
        source: the data set.
        side: height and width; larger images are averaged down.
        batch_size: B.
        intensities: whether pixels are in [0, 1].
    """

    source: Source
    side: int
    batch_size: int
    intensities: bool = False

    @property
    def features(self) -> int:
        """Number of pixels, D."""
        return self.source.shape[0] * self.side**2

    def shared(self) -> Batch:
        """Return `train_x`, and `heldout_x`, at most 256 images that are none of them."""
        images = self.source.load().resized((self.source.shape[0], self.side, self.side))
        train, heldout = images.train[0], images.heldout[0][:_HELDOUT_ROWS]
        if self.intensities:
            low, high = train.min(), train.max()
            train, heldout = (((part - low) / (high - low)).clamp(0.0, 1.0) for part in (train, heldout))
        return {"train_x": train, "heldout_x": heldout}

    def batch(self, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return x [B, D], drawn with replacement from the training images."""
        rows = seeds.randint(seeds.fold_in(key, step), (self.batch_size,), len(shared["train_x"]))
        return {"x": shared["train_x"][rows]}

    def heldout(self, shared: Batch) -> Batch:
        """Return the held-out images."""
        return {"x": shared["heldout_x"]}
