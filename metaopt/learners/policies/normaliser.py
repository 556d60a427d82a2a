"""Moving mean and variance of features, kept inside the network that they belong to, so that they are saved, sent and frozen with it."""

import torch
from torch import Tensor, nn

__all__ = ["BETA", "CLIP", "Normaliser"]

BETA = 0.999
EPS = 1e-5
CLIP = 2.0


class Normaliser(nn.Module):
    """(x - mean) / sqrt(variance + 1e-5), clipped to +-2, with statistics that only `update` changes.

    One update is one batch, however large. Update k has the weight w = (1 - beta) / (1 - beta^k): an exponential average without the bias
    of its start. Mean and variance are those of the mixture of old and new, so that a drift of the mean counts as variance.
    Fresh statistics are mean 0 and variance 1.

    Args:
        features: how many; x is [..., features].
        clip: largest size of a normalised feature.
    """

    mean: Tensor
    variance: Tensor
    updates: Tensor

    def __init__(self, features: int, clip: float = CLIP) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised features, of x's shape."""
        return ((x - self.mean) * (self.variance + EPS).rsqrt()).clamp(-self.clip, self.clip)

    def inverse(self, y: Tensor) -> Tensor:
        """Return the features whose normalised values (within the clip) are y."""
        return y * (self.variance + EPS).sqrt() + self.mean

    @torch.no_grad()
    def update(self, x: Tensor, valid: Tensor | None = None) -> None:
        """Take one batch into the statistics; mutates the buffers.

        Args:
            x: [..., features].
            valid: [...] bool, which rows count (None: all). A batch without any changes nothing.
        """
        rows = (x.reshape(-1, x.shape[-1]) if valid is None else x[valid]).double()
        if not len(rows):
            return
        self.updates += 1
        w = (1.0 - BETA) / (1.0 - BETA ** int(self.updates))
        shift = rows.mean(0) - self.mean.double()
        mixed = (1.0 - w) * (self.variance.double() + w * shift.square()) + w * rows.var(0, correction=0)
        self.mean.copy_(self.mean.double() + w * shift)
        self.variance.copy_(mixed)
