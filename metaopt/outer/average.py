"""The running mean of theta, which is usually a better optimizer than the last theta of a noisy run.

With weights decay^age, normalised, the mean after n steps is `mean += w (theta - mean)`, `w = (1 - decay) / (1 - decay^n)`: the exponential
average with the bias correction of Adam. At decay 1 the weight is 1 / n, the uniform mean of the tail.

Source: Polyak, Juditsky, 1992, "Acceleration of stochastic approximation by averaging" (uniform); Jain et al., 2018, "Parallelizing
stochastic gradient descent for least squares regression" (of the tail); Morales-Brotons, Vogels, Hendrikx, 2024, "Exponential moving
average of weights in deep learning: dynamics and benefits".
"""

from typing import Any

from metaopt.learners.update_rules import Theta

__all__ = ["ThetaAverage"]


class ThetaAverage:
    """The mean of the thetas that it was shown. `decay`: in [0, 1], weight of a theta against the next one."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.count = 0
        self._mean: Theta = {}
        self._weight = 0.0  # 1 + decay + decay^2 + ..., `count` terms

    def add(self, theta: Theta) -> None:
        """Take one more theta into the mean."""
        self.count += 1
        self._weight = 1.0 + self.decay * self._weight
        step = 1.0 / self._weight
        # The first one as it is: arithmetic with a zero could change a bit.
        self._mean = {k: v.clone() if self.count == 1 else self._mean[k] + step * (v - self._mean[k]) for k, v in theta.items()}

    def value(self, otherwise: Theta) -> Theta:
        """Return the mean, a copy; `otherwise` before the first theta."""
        return {name: value.clone() for name, value in (self._mean if self.count else otherwise).items()}

    def state(self) -> dict[str, Any]:
        """Return everything, for a checkpoint."""
        return {"count": self.count, "weight": self._weight, "mean": dict(self._mean)}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.count, self._weight, self._mean = state["count"], state["weight"], dict(state["mean"])
