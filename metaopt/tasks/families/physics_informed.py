"""Solving a boundary value problem by making a small network satisfy the equation: family `physics_informed`.

Equation, width, depth, activation and number of collocation points are static, hence a template; the solution that is looked for, the
initial scale and the horizon vary inside it. The unknown u on [0, 1] is 0 at both ends by construction: u(x) = x (1 - x) N(x). Right-hand
sides are made from a known solution, a sum of sines.

Training draws collocation points at random; what is held out is the same residual on an even grid, for it must be a value of the same loss.
`PhysicsInformed.error` tells how far the network is from the solution. No stream and no model are offered: there are no examples to learn
from. Only a test split: no rule is meta-trained on it.

Legend: B points, K modes of the solution.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.tasks.families.drawn import DrawnFamily
from metaopt.tasks.models.jets import Jet, jet
from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.models.small_head import SmallHead
from metaopt.tasks.task import Batch, Numbers, Params

__all__ = ["PHYSICS_INFORMED", "PhysicsInformed"]

_MODES = 3
_GRID = 128  # held-out points
_VISCOSITY = 0.1  # of Burgers' equation: the solution is steep, not broken


@dataclass(frozen=True)
class PhysicsInformed:
    """Mean squared residual of an equation over collocation points: -u'' = f (poisson) or u u' - 0.1 u'' = f (burgers, at rest).

    It is in units of the mean square of f, which is the residual of u = 0.

    Numbers: `amplitudes` [K] of sin(k pi x), `reference` (the unit), `init_scale`, `horizon`.

    Source: Raissi, Perdikaris, Karniadakis, 2019, "Physics-informed neural networks", section 3. Differs: boundary values hold exactly.
    """

    equation: str
    width: int
    depth: int
    activation: str
    batch_size: int
    cap: float = 10.0

    @property
    def net(self) -> SmallHead:
        """What x (1 - x) is multiplied by."""
        return SmallHead(MLP((1, *[self.width] * self.depth, 1), self.activation))

    def shared(self) -> Batch:
        """Return nothing: there is no data."""
        return {}

    def init(self, numbers: Numbers, key: Tensor) -> Params:
        """Return the net's fresh weights at the task's initial scale."""
        return self.net.init(key, numbers["init_scale"])

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return collocation points `x` [B], uniform on [0, 1)."""
        return {"x": seeds.uniform(seeds.fold_in(key, step), (self.batch_size,), numbers["reference"].dtype)}

    def heldout(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return the middles `x` of 128 equal parts of [0, 1]."""
        like = numbers["reference"]
        return {"x": (torch.arange(_GRID, dtype=like.dtype, device=like.device) + 0.5) / _GRID}

    def solution(self, numbers: Numbers, x: Tensor) -> Jet:
        """Return the solution and its first two derivatives at x [B]."""
        a = numbers["amplitudes"]
        rate = torch.pi * torch.arange(1, _MODES + 1, dtype=a.dtype, device=a.device)
        angle = x.unsqueeze(-1) * rate
        return angle.sin() @ a, angle.cos() @ (a * rate), -(angle.sin() @ (a * rate.square()))

    def unknown(self, params: Params, x: Tensor) -> Jet:
        """Return u = x (1 - x) N(x) and its first two derivatives at x [B]."""
        n, n1, n2 = jet(self.net.net, params, 2.0 * x - 1.0)
        n1, n2 = 2.0 * n1, 4.0 * n2
        hat, slope = x * (1.0 - x), 1.0 - 2.0 * x
        return hat * n, slope * n + hat * n1, -2.0 * n + 2.0 * slope * n1 + hat * n2

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the mean squared residual at the points of a batch, over that of u = 0."""
        wanted, found = (self.left_side(u) for u in (self.solution(numbers, batch["x"]), self.unknown(params, batch["x"])))
        return (found - wanted).square().mean() / numbers["reference"]

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        """Return the loss, which is on the common scale as it is: 1 for u = 0."""
        return raw

    def error(self, numbers: Numbers, params: Params) -> Tensor:
        """Return the root of the mean squared error of u over that of u = 0, on the held-out points."""
        x = self.heldout(numbers, {}, seeds.key(), torch.tensor(0))["x"]
        wanted = self.solution(numbers, x)[0]
        return ((self.unknown(params, x)[0] - wanted).square().mean() / wanted.square().mean()).sqrt()

    def left_side(self, u: Jet) -> Tensor:
        """Return what the equation makes of u and its derivatives: f, for the solution."""
        value, first, second = u
        return -second if self.equation == "poisson" else value * first - _VISCOSITY * second


def _problem(program: PhysicsInformed, key: Tensor) -> Numbers:
    """Return a solution that is a sum of three sines, with normal amplitudes over k^2 for sin(k pi x), and the loss of u = 0."""
    draw = seeds.normal(key, (_MODES,), torch.float64)
    numbers = {"amplitudes": draw / torch.arange(1, _MODES + 1) ** 2, "reference": torch.ones((), dtype=torch.float64)}
    grid = program.heldout(numbers, {}, seeds.key(), torch.tensor(0))["x"]
    return numbers | {"reference": program.left_side(program.solution(numbers, grid)).square().mean()}


def _grid(*programs: PhysicsInformed) -> dict[str, PhysicsInformed]:
    return {f"{p.equation}-width{p.width}-depth{p.depth}-{p.activation}-batch{p.batch_size}": p for p in programs}


PHYSICS_INFORMED = DrawnFamily(
    "physics_informed",
    {
        "meta_test": _grid(
            PhysicsInformed("poisson", 24, 2, "tanh", 32),
            PhysicsInformed("poisson", 32, 1, "sin", 48),
            PhysicsInformed("burgers", 32, 2, "tanh", 48),
        )
    },
    _problem,
    init_scale=(0.7, 1.4),
)
