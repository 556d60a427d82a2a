"""HDM-Best: a step size for each weight and a momentum, learned online from the gradient at the point where they would lead.

Every step tries a candidate x+ = x - P g + b (x - x_prev), and takes it only if it lowers the loss (else it is a null step: x stays, bit
for bit). Either way P [as x] and b [] learn by AdaGrad from the derivative of f(x+), divided by |g|^2 + (L |x - x_prev|)^2 / 4.

Source: Gao, Chu, Ye, Udell, 2024, "Gradient methods with online scaling" (2411.01803); Chu, Gao, Ye, Udell, 2025, "Provable and practical
online learning rate adaptation with hypergradient descent" (2502.11229; null steps, AdaGrad, heavy ball); the same, 2025, "Gradient methods
with online scaling, part II" (2509.11007); start and bounds of P and b as in the authors' repository `osgm-best-hypergrad`. Differs: L is
the largest curvature met so far, where the repository averages curvatures once; the first candidate, which would be x itself, is a probe of
it, as are the next ones on a loss that is straight there; a candidate where the loss is not finite halves P, from which the repository
would learn.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metaopt.learners.learner import Carry, StepRecord, schedule_factor
from metaopt.learners.update_rules.classic import Size, root
from metaopt.learners.update_rules.rule import Hyper, Theta
from metaopt.learners.whole_model import Hypers, WholeModelLearner, WholeState
from metaopt.tasks.task import Batch, Params, Task

__all__ = ["HDMBest"]

_FIRST_MOMENTUM = 0.95
_LARGEST_MOMENTUM = 0.9995


@dataclass(frozen=True)
class HDMBest(WholeModelLearner):
    """Gradient descent with learned step sizes and momentum, for losses whose every batch is the whole data, and convex ones at that.

    A step takes two gradients of the batch, at x and at the candidate: count it as two. With noise, a null step compares two losses of one
    batch, and step sizes are learned for that batch; nothing is promised then.

    Attributes:
        lr: step size of P, in units of 1 / L; a task's schedule multiplies it.
        momentum_lr: step size of b.
    """

    name: ClassVar[str] = "hdm_best"
    lr: Size = 1.0
    momentum_lr: Size = 1.0

    def init_state(self, h: Hypers, params: Params) -> WholeState:
        """Return step sizes of zero, the first momentum, AdaGrad's sums, the last point, no curvature yet, and how far to probe for it."""
        one = next(iter(params.values())).new_ones(())
        zeros = {what: {name: torch.zeros_like(param) for name, param in params.items()} for what in ("sizes", "sizes_sum")}
        probe = torch.finfo(one.dtype).eps ** (1 / 3) * one  # where a difference of gradients has most digits
        numbers = {"momentum": _FIRST_MOMENTUM * one, "momentum_sum": 0 * one, "curvature": 0 * one, "probe": probe}
        return {**zeros, "previous": {name: param.clone() for name, param in params.items()}, **numbers}

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return the carry after one step, and the loss before it."""
        h, params, state, t = self.hypers(theta), carry["params"], carry["state"], carry["t"]
        noise = carry.get("gradient_state", {})
        grads, loss, later = task.gradients(params, batch, noise)
        scales = {name: task.step_scales.get(name, 1.0) for name in params}
        candidate = self.candidate(params, grads, state, scales)
        slopes, reached, _ = task.gradients(candidate, batch, noise)
        tried = {**state, "candidate": candidate, "slopes": slopes, "gain": loss - reached}
        params, state = self.update(h, params, grads, tried, t, h["lr"] * schedule_factor(self.schedule, t, task.horizon), scales)
        after = {"params": params, "state": state, "t": t + 1}
        return {**after, "gradient_state": later} if later else after, StepRecord(loss)

    def candidate(self, params: Params, grads: Params, state: WholeState, scales: dict[str, float]) -> Params:
        """Return the point to try; while no curvature has been met, one a little down the gradient."""
        known = state["curvature"] > 0
        size = root(_dot(grads, grads))
        little = state["probe"] * (1 + root(_dot(params, params))) / torch.where(size > 0, size, 1.0)
        found = {}
        for name, x in params.items():
            there = x - scales[name] * state["sizes"][name] * grads[name] + state["momentum"] * (x - state["previous"][name])
            found[name] = torch.where(known, there, x - little * grads[name])
        return found

    def update(
        self, h: Hypers, params: Params, grads: Params, state: WholeState, t: Tensor, lr: Hyper, scales: dict[str, float]
    ) -> tuple[Params, WholeState]:
        """Return (params, state); `state` has also the `candidate`, the gradient there (`slopes`) and how much the loss falls (`gain`)."""
        candidate, slopes, gain = state["candidate"], state["slopes"], state["gain"]
        step = {name: x - state["previous"][name] for name, x in params.items()}
        finite = torch.isfinite(gain) & torch.isfinite(_dot(slopes, slopes))
        curvature = _largest_curvature(params, grads, candidate, slopes, state["curvature"], finite)
        scale = _dot(grads, grads) + 0.25 * curvature**2 * _dot(step, step)
        scale, unit = torch.where(scale > 0, scale, 1.0), torch.where(curvature > 0, curvature, 1.0)

        slope = _dot(slopes, step) / scale
        momentum_sum = state["momentum_sum"] + slope**2
        momentum = (state["momentum"] - h["momentum_lr"] * _adagrad(slope, momentum_sum)).clamp(0.0, _LARGEST_MOMENTUM)
        # A loss that is straight here (a hinge) is probed twice as far next time.
        numbers = {"momentum": momentum, "momentum_sum": momentum_sum, "curvature": curvature, "probe": 2 * state["probe"]}
        new: dict[str, Any] = {name: torch.where(finite, value, state[name]) for name, value in numbers.items()}
        new |= {"sizes": {}, "sizes_sum": {}, "previous": params}
        better = finite & (gain > 0) & (state["curvature"] > 0)  # a probe is no step
        x_new = {}
        for name, x in params.items():
            slope = -slopes[name] * grads[name] / scale
            total = state["sizes_sum"][name] + slope**2
            sizes = (state["sizes"][name] - lr / unit * _adagrad(slope, total)).clamp(min=0.0)
            new["sizes"][name] = torch.where(finite, sizes, 0.5 * state["sizes"][name])
            new["sizes_sum"][name] = torch.where(finite, total, state["sizes_sum"][name])
            x_new[name] = torch.where(better, candidate[name], x)
        return x_new, new


def _largest_curvature(x: Params, grads: Params, candidate: Params, slopes: Params, so_far: Tensor, finite: Tensor) -> Tensor:
    """Return the largest |gradient's change| / |weights' change| so far: a lower bound of the smoothness L."""
    moved = {name: candidate[name] - x[name] for name in x}
    turned = {name: slopes[name] - grads[name] for name in x}
    length = root(_dot(moved, moved))
    usable = finite & (length > 0)
    return torch.where(usable, torch.maximum(so_far, root(_dot(turned, turned)) / torch.where(usable, length, 1.0)), so_far)


def _adagrad(slope: Tensor, total: Tensor) -> Tensor:
    """Return the slope over the root of its sum of squares, 0 where there never was one."""
    size = root(total)
    return slope / torch.where(size > 0, size, 1.0)


def _dot(one: Params, other: Params) -> Tensor:
    total: Tensor = sum(((one[name] * other[name]).sum() for name in one), start=next(iter(one.values())).new_zeros(()))
    return total
