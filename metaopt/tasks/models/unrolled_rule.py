"""A small update rule and its unroll, as an inner model: its parameters are what a learned-optimizer task trains.

Legend: P problems, D variables of a problem, F features, K steps. Weights are [out, in], as in torch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.models.small_head import SmallHead
from metaopt.tasks.task import Params

__all__ = ["UnrolledRule"]

Gradient = Callable[[Tensor], Tensor]

_DECAYS = (0.5, 0.9)  # of the two momenta
_SQUARES_DECAY = 0.9
_FINE = 100.0  # a second scale at which gradients are looked at, for problems that are nearly solved
_STEP = 0.1
_EPS = 1e-8


@dataclass(frozen=True)
class UnrolledRule:
    """x <- x - 0.1 d exp(m), (d, m) from a net of seven features of each variable: the gradient and a momentum on a logarithmic scale
    (asinh), the gradient once more magnified, gradient and momenta over the root mean square of past gradients, the fraction of steps made.

    It is a task's inner model, not an update rule of this platform: those live in `metaopt.learners` and train on tasks.

    Source: Andrychowicz et al., 2016, "Learning to learn by gradient descent by gradient descent", section 2 and appendix A. Differs: a net
    without memory beside two momenta; a smooth logarithm.
    """

    hidden: int
    activation: str
    features: ClassVar[int] = 7

    @property
    def net(self) -> SmallHead:
        """The net from features to direction and log magnitude."""
        return SmallHead(MLP((self.features, self.hidden, 2), self.activation))

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights N(0, scale^2 / fan_in), a tenth of that in the last layer, and zero biases: a rule that hardly moves."""
        return self.net.init(key, scale)

    def apply(self, params: Params, gradient: Gradient, start: Tensor, steps: int) -> list[Tensor]:
        """Return the variables [P, D] after each of K steps from `start` [P, D]; differentiable in `params`.

        Args:
            params: the rule's weights.
            gradient: variables [P, D] -> gradients [P, D], in closed form, so that only one derivative is taken.
            start: where to begin.
            steps: K, >= 1.
        """
        x, momenta, squares = start, [torch.zeros_like(start)] * len(_DECAYS), torch.zeros_like(start)
        visited = []
        for k in range(steps):
            g = gradient(x)
            momenta = [decay * m + (1 - decay) * g for decay, m in zip(_DECAYS, momenta, strict=True)]
            squares = _SQUARES_DECAY * squares + (1 - _SQUARES_DECAY) * g.square()
            means = [m / (1 - decay ** (k + 1)) for decay, m in zip(_DECAYS, momenta, strict=True)]
            scale = torch.rsqrt(squares / (1 - _SQUARES_DECAY ** (k + 1)) + _EPS)
            seen = [torch.asinh(g), torch.asinh(_FINE * g) / math.asinh(_FINE), torch.asinh(means[-1])]
            seen += [g * scale, *(mean * scale for mean in means), torch.full_like(x, k / steps)]
            direction, magnitude = self.net.apply(params, torch.stack(seen, -1).flatten(0, 1)).reshape(*x.shape, 2).unbind(-1)
            x = x - _STEP * direction * torch.exp(magnitude)
            visited.append(x)
        return visited
