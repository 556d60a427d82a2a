"""What an evolution strategy makes of the loss differences of its pairs before it multiplies them by the noise.

Legend: N antithetic pairs. A window has one or more segments a pair, each with noise of its own; a segment's weight is its share of the
window's loss, 0 where a pair has no such segment.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from metaopt.errors import ConfigError

__all__ = ["Difference", "Differences"]

Difference = Literal["raw", "sign", "normalised"]

_DECAY = 0.9  # of the running scale a window: about ten windows are remembered


class Differences:
    """Treats the differences of one shard; "normalised" keeps their running scale.

    Args:
        kind: "raw" leaves them as they are, the only choice without bias. "sign" keeps the sign alone, so that every pair has equal weight.
            "normalised" divides by the running median of their size over pairs and clips: one exploding pair cannot decide a step.
        clip: largest size of a normalised difference, > 0.

    Source: Metz et al., 2022, "VeLO: training versatile learned optimizers by scaling up", appendix (sign). Dividing by a running scale is
    common practice; median, decay and clip were chosen here.
    """

    def __init__(self, kind: Difference = "raw", clip: float = 3.0) -> None:
        if kind not in get_args(Difference):
            raise ConfigError(f"difference must be one of {', '.join(get_args(Difference))}, got {kind!r}")
        if clip <= 0:
            raise ConfigError(f"difference_clip must be > 0, got {clip}")
        self.kind, self.clip = kind, clip
        self._total, self._count = 0.0, 0.0  # decayed sum of medians, decayed number of windows

    def treat(self, segments: Sequence[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], float]:
        """Return the multiplier [N] of each segment's noise and the share of differences that were clipped.

        Args:
            segments: for each, (weight times mean loss difference [N], weight [N]).

        "normalised" takes the window's own differences into the running scale first.
        """
        if self.kind == "raw":
            return [value for value, _ in segments], 0.0
        if self.kind == "sign":
            return [torch.sign(value) * weight for value, weight in segments], 0.0
        sizes = torch.cat([(value / weight).abs()[weight > 0] for value, weight in segments])
        self._total = _DECAY * self._total + float(sizes.median())
        self._count = _DECAY * self._count + 1.0
        scale = self._total / self._count
        if scale == 0.0:
            return [torch.zeros_like(value) for value, _ in segments], 0.0
        clipped = float((sizes > self.clip * scale).double().mean())
        # |value| <= weight * scale * clip, written so that a weight of 0 divides nothing.
        return [torch.minimum(torch.maximum(v / scale, -self.clip * w), self.clip * w) for v, w in segments], clipped

    def state(self) -> dict[str, Any]:
        """Return the running scale, or nothing where there is none."""
        if self.kind != "normalised":
            return {}
        return {"difference_scale": torch.tensor([self._total, self._count], dtype=torch.float64)}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        if "difference_scale" in state:
            self._total, self._count = state["difference_scale"].tolist()
