"""Links: coordinates in which a hyperparameter is learned, so that no step can leave the values that make sense.

`log` keeps a rate positive, `logit` keeps a momentum or a beta inside (0, 1); `square` (a rate is the square of its coordinate) and
`identity` are what published implementations use. Functions are elementwise on float64 tensors. Links change the range, not the speed: a
small step of one size in the value is the same step under all of them (`towers`).

Source: Chandra et al., 2022, "Gradient descent: the ultimate optimizer" (1909.13371; `square`, `identity`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LINKS", "Link"]


@dataclass(frozen=True)
class Link:
    """A map from a coordinate to the values of a hyperparameter.

    Attributes:
        name: of the link.
        to: value -> coordinate.
        value: coordinate -> value.
        slope: coordinate -> d value / d coordinate.
        relative: coordinate -> d coordinate / d step, of a step in the relative size of the value (in its odds, for `logit`).
        low, high: the values lie between these; a value without a finite coordinate cannot be learned.
        most: the farthest that a coordinate moves in one step.
    """

    name: str
    to: Callable[[Tensor], Tensor]
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    relative: Callable[[Tensor], Tensor]
    low: float
    high: float
    most: float = math.inf


def _logistic_slope(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * torch.sigmoid(-x)  # beta (1 - beta): the second factor keeps its digits when beta is close to 1


def _double(x: Tensor) -> Tensor:
    return 2.0 * x


def _half(x: Tensor) -> Tensor:
    return 0.5 * x


# One step changes a rate by a factor of e at most. A hypergradient is as large as the loss: without a limit, one spike of it sends the rate
# anywhere; and where the rate is tiny, a step of useful size in the value is many e-folds.
LINKS = {
    link.name: link
    for link in (
        Link("log", torch.log, torch.exp, torch.exp, torch.ones_like, 0.0, math.inf, most=1.0),
        Link("logit", torch.logit, torch.sigmoid, _logistic_slope, torch.ones_like, 0.0, 1.0, most=1.0),
        Link("square", torch.sqrt, torch.square, _double, _half, 0.0, math.inf),
        Link("identity", torch.clone, torch.clone, torch.ones_like, torch.clone, -math.inf, math.inf),
    )
}
