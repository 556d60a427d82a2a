"""Tables of few inputs, such as coordinates, in a form from which a small network can learn quick changes.

Legend: B batch, D coordinates, F features.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.tasks.data.data_set import Source
from metaopt.tasks.streams.arrays import Examples
from metaopt.tasks.task import Batch

__all__ = ["Coordinates", "encode"]


def encode(inputs: Tensor, features: int, frequency: float) -> Tensor:
    """Return [..., 2 F] sines and cosines of inputs [..., D] in F fixed random directions, or the inputs times `frequency` if F is 0.

    Directions are N(0, frequency^2) in each coordinate and the same for every table; angles are in radians.

    Source: Tancik et al., 2020, "Fourier features let networks learn high frequency functions in low dimensional domains", section 4;
    without features, Sitzmann et al., 2020, "Implicit neural representations with periodic activation functions", section 3.2.
    """
    if features == 0:
        return frequency * inputs
    directions = frequency * seeds.normal(seeds.key("coordinates"), (features, inputs.shape[-1]), torch.float64)
    angles = inputs @ directions.to(inputs).T
    return torch.cat([angles.sin(), angles.cos()], -1)


@functools.cache
def _tensors(stream: "Coordinates") -> Batch:
    """Return the encoded table; all tasks share it."""
    shared = stream.examples.shared()
    coded = {name: encode(shared[name], stream.features, stream.frequency) for name in ("train_x", "heldout_x")}
    return {**shared, **coded}


@dataclass(frozen=True)
class Coordinates:
    """Batches of a table whose inputs are encoded once, when the table is read.

    Attributes:
        source: the table.
        batch_size: B.
        features: F; 0 leaves the coordinates as they are.
        frequency: of the features, or the factor of the coordinates, which are standardised.
    """

    source: Source
    batch_size: int
    features: int
    frequency: float

    @property
    def examples(self) -> Examples:
        """The table itself."""
        return Examples(self.source, self.source.shape, self.batch_size)

    @property
    def inputs(self) -> int:
        """Number of encoded inputs."""
        return 2 * self.features or self.source.shape[0]

    def shared(self) -> Batch:
        """Return the table, see `Examples`, with encoded inputs."""
        return dict(_tensors(self))

    def batch(self, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return x [B, inputs], y [B], drawn with replacement from the training rows."""
        return self.examples.batch(shared, key, step)

    def heldout(self, shared: Batch) -> Batch:
        """Return the held-out rows."""
        return self.examples.heldout(shared)
