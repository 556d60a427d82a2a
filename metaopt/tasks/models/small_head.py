"""Nets whose output is an amount: the last layer begins small, so that predictions begin near the mean whatever stands above."""

from dataclasses import dataclass

from torch import Tensor

from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.task import Params

__all__ = ["HEAD_SHARE", "SmallHead"]

HEAD_SHARE = 0.1  # of the usual size: two orders of magnitude in the variance of the first predictions


@dataclass(frozen=True)
class SmallHead:
    """A fully connected net whose last layer begins at a tenth of its usual weights."""

    net: MLP

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return the net's fresh weights, the last layer's times a tenth."""
        params = self.net.init(key, scale)
        head = f"layer{len(self.net.sizes) - 2}.weight"
        return {**params, head: params[head] * HEAD_SHARE}

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return the net's outputs [B, C] of inputs [B, ...]."""
        return self.net.apply(params, inputs)
