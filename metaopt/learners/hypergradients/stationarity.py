"""Tell from cosines whether a one-step hypergradient still means anything, or takes the rate to its floor.

A one-step method follows R = E[g(w') . u], where w' = w - a u is one step and g the gradient of the next batch. Let F = E[g'(w) . u] be the
same with a fresh batch at the *old* weights, and let the loss be quadratic with the Hessian H. Batches are fresh, so that their noise drops
out of both, and grad L(w') = grad L(w) - a H u gives

    R = F - a u'Hu,        L(w') - L(w) = -a F + a^2 u'Hu / 2 = -a (F + R) / 2.

The second line is the trapezoid rule along the step, exact on a quadratic, whatever the optimizer is that made u. Hence

- where the loss has stopped falling, R = -F = -a u'Hu / 2: **negative for every rate and every optimizer**. The sign says "lower the rate"
  although nothing is wrong with it, and goes on saying so at the next rate: a ratchet. Only the comparison with F tells: R > -F the loss
  falls, R = -F it stays, R < -F it rises. `frozen_cosine` measures F.
- R = 0 is the greedy rate: the loss falls by a F / 2 with each step.
- for SGD (u = g) with noise the stationary cosine is -a k / 2, k being the curvature weighted by the gradient's power, sum h E[g_i^2] /
  sum E[g_i^2]. At -1/2 the rate is 1/k: above it steps overshoot where the gradient is, and a lower rate both forgets faster
  (|1 - a h| falls) and has less noise. There a hypergradient that points down is right: "oscillating". Between -1/2 and 0 a lower rate
  buys less noise for slower progress, which a look-ahead of one step cannot weigh: "noise floor".

Only cosines are read, because a fresh batch at old weights costs a gradient. A cosine alone does not show a rate between the greedy and
the stationary one from a rate at its floor: both are negative, and both are lowered. Momentum and preconditioning change the size of the
stationary cosine, not its sign; the border -1/2 is that of SGD.

Source: Wu, Ren, Liao, Grosse, 2018, "Understanding short-horizon bias in stochastic meta-optimization"; Baydin et al., 2018, "Online
learning rate adaptation with hypergradient descent" (R); the comparison with F is worked out above.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import Tensor

__all__ = ["OSCILLATING", "WINDOWS", "FrozenCosine", "State", "Stationarity", "cosine", "frozen_cosine", "loss_change"]

_P = TypeVar("_P")
_B = TypeVar("_B")

State = Literal["starting", "undecided", "progress", "noise floor", "oscillating"]

WINDOWS = (100, 1_000, 10_000)  # steps; a small rate has a small cosine, which takes long to see
OSCILLATING = -0.5  # SGD at the rate 1 / k
# Standard errors. White cosines of mean zero pass it on the lower side within 3,000 steps in no run of 200 (simulated; 3 runs at 4.5).
_SURE = 5.0


class Stationarity:
    """Watch the cosine of each gradient with the direction of the step before, and say what it means.

    Means over `WINDOWS` steps (exponential, bias-corrected) are compared with their standard errors; the shortest window that is sure of a
    sign decides. Cosines of steps that follow each other are close to uncorrelated where noise dominates (the noise of each batch is in
    two of them, times that of two others), so the standard error of a window of n steps is the spread over sqrt(n).

    Args:
        every: it is given the cosine of one step in so many, which its windows then count.
    """

    def __init__(self, every: int = 1) -> None:
        self._every = every
        self._steps = 0.0
        self._means = [[0.0, 0.0, 0.0] for _ in WINDOWS]  # of the cosine, its square, and whether it is negative
        self._warned = 0.0

    def update(self, cosine: float) -> str | None:
        """Take one step's cosine, [-1, 1]; return a warning, one line, when the noise floor is seen for the first time.

        A cosine that is not finite (a norm was zero, or a gradient was not finite) is left out.
        """
        if not math.isfinite(cosine):
            return None
        self._steps += 1.0
        for window, means in zip(WINDOWS, self._means, strict=True):
            weight = 2.0 / (window + 1.0)
            for i, value in enumerate((cosine, cosine * cosine, float(cosine < 0.0))):
                means[i] += weight * (value - means[i])
        if self._warned:
            return None
        deciding = self._deciding()
        if deciding is None or self._state(deciding) != "noise floor":
            return None
        self._warned = 1.0
        return self._warning(deciding)

    @property
    def state(self) -> State:
        """What the cosines so far say.

        `starting`: fewer than the shortest window. `undecided`: no window is sure of a sign; the rate is about the greedy one, or the
        cosine too small to see. `progress`: a longer step would have been better. `noise floor` and `oscillating`: see the module.
        """
        if self._steps < WINDOWS[0]:
            return "starting"
        deciding = self._deciding()
        return "undecided" if deciding is None else self._state(deciding)

    @property
    def cosine(self) -> float:
        """Mean cosine of the window that decides, or of the shortest one; nan before the first step."""
        deciding = self._deciding()
        return self._mean(0 if deciding is None else deciding, 0)

    def state_dict(self) -> dict[str, float]:
        """Return everything that the watch remembers, as plain floats."""
        kept = {f"{what}_{window}": self._means[w][i] for w, window in enumerate(WINDOWS) for i, what in enumerate(_MEANS)}
        return {"steps": self._steps, "warned": self._warned, **kept}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on, bit for bit, from what `state_dict` returned."""
        self._steps, self._warned = state["steps"], state["warned"]
        self._means = [[state[f"{what}_{window}"] for what in _MEANS] for window in WINDOWS]

    def _mean(self, window: int, which: int) -> float:
        filled = self._filled(window)
        return self._means[window][which] / filled if filled else math.nan

    def _filled(self, window: int) -> float:
        """Return the sum of the weights so far; exponential means start at zero."""
        return 1.0 - math.pow(_kept(window), self._steps)

    def _deciding(self) -> int | None:
        """Return the shortest window that is sure of a sign, or None."""
        for window, length in enumerate(WINDOWS):
            if self._steps < length:
                return None
            mean = self._mean(window, 0)
            variance = max(0.0, self._mean(window, 1) - mean * mean)
            left = math.pow(_kept(window), self._steps)
            count = length * (1.0 - left) / (1.0 + left)  # (sum of weights)^2 / sum of their squares
            if mean != 0.0 and mean * mean * count >= _SURE**2 * variance:
                return window
        return None

    def _state(self, window: int) -> State:
        mean = self._mean(window, 0)
        return "progress" if mean > 0.0 else "oscillating" if mean <= OSCILLATING else "noise floor"

    def _warning(self, window: int) -> str:
        length = WINDOWS[window]
        negative = round(self._mean(window, 2) * length)
        seen = "steps" if self._every == 1 else f"steps that were looked at (one in {self._every})"
        return (
            f"the hypergradient of lr has been negative for {negative} of the last {length} {seen}, with a mean cosine of "
            f"{self._mean(window, 0):.2g}: noise, not curvature. The rate is being driven to its floor. Freeze it (take 'lr' out of "
            "learn=, or give it a lower bound), use a schedule, or a larger batch"
        )


_MEANS = ("cosine", "square", "negative")


def _kept(window: int) -> float:
    return 1.0 - 2.0 / (WINDOWS[window] + 1.0)


def cosine(dot: float, norm_now: float, norm_then: float) -> float:
    """Return dot / (norm_now norm_then), nan where a norm is zero or a number is not finite."""
    size = norm_now * norm_then
    return max(-1.0, min(1.0, dot / size)) if size > 0.0 and math.isfinite(size) and math.isfinite(dot) else math.nan


def loss_change(rate: float, frozen_dot: float, running_dot: float) -> float:
    """Return the expected change of the loss of one step, -rate (F + R) / 2; exact on quadratics, of third order in the step elsewhere.

    Args:
        rate: a, of the step w' = w - a u.
        frozen_dot: F, a fresh batch's gradient at the weights *before* the step, times u.
        running_dot: R, a fresh batch's gradient *after* the step, times u.
    """
    return -0.5 * rate * (frozen_dot + running_dot)


@dataclass(frozen=True)
class FrozenCosine:
    """Gradients of fresh batches at the same weights.

    Attributes:
        cosine: mean dot product of two batches' gradients over the mean squared norm, unbiased above and below: |grad L|^2 / E|g|^2.
        signal_to_noise: squared norm of the mean gradient over the summed variances of a batch's, cosine / (1 - cosine).
        squared_norm: |grad L|^2, unbiased: F of a step of SGD; negative where noise hides it.
        batches: how many there were.
    """

    cosine: float
    signal_to_noise: float
    squared_norm: float
    batches: int


def frozen_cosine(grad_fn: Callable[[_P, _B], Iterable[Tensor]], params: _P, batches: Iterable[_B]) -> FrozenCosine:
    """Return how well the gradients of fresh batches agree at weights that do not move.

    With n gradients g_i: sum over pairs of g_i . g_j = |sum g|^2 - sum |g|^2, so that memory holds one sum and no gradient.

    Args:
        grad_fn: (params, batch) -> gradient, one tensor a parameter.
        params: whatever `grad_fn` takes; not changed.
        batches: at least two, independent.

    Raises:
        ValueError: fewer than two batches.
    """
    total: list[Tensor] = []
    squares, count = 0.0, 0
    for batch in batches:
        grads = [grad.detach().double() for grad in grad_fn(params, batch)]
        squares += sum(float(grad.square().sum()) for grad in grads)
        total = grads if not total else [a + b for a, b in zip(total, grads, strict=True)]
        count += 1
    if count < 2:
        raise ValueError(f"frozen_cosine needs at least two batches, got {count}")
    agreeing = (sum(float(one.square().sum()) for one in total) - squares) / (count * (count - 1))
    mean_square = squares / count
    noise = mean_square - agreeing
    ratio = agreeing / mean_square if mean_square else math.nan
    return FrozenCosine(ratio, agreeing / noise if noise else math.inf, agreeing, count)
