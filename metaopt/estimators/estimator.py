"""The contract of an estimator of meta-gradients: a recipe, which is options only, and the estimator that it builds.

A recipe is a frozen dataclass whose init fields are its options, by the names and ranges that a config uses. An estimator holds the inner
runs of one shard; its estimates are a pure function of its state, theta and the outer step.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from metaopt.errors import ConfigError
from metaopt.inner.looped import is_vectorised
from metaopt.inner.particles import Episodes
from metaopt.learners.learner import Learner
from metaopt.learners.update_rules import Theta

__all__ = ["Estimator", "MetaGradient", "Recipe", "check_differentiable"]


@dataclass(frozen=True)
class MetaGradient:
    """One estimate of d(mean normalised loss of a step) / d(theta).

    Attributes:
        grad: mean over pairs (or particles), shaped like theta.
        loss: mean normalised loss over pairs, members and valid steps, or of what else the estimator's objective is.
        loss_se: standard error of `loss` over pairs (nan for one pair).
        nonfinite: rows that met a non-finite raw loss, or whose derivative was not finite and was left out.
        diverged: pairs that met one or reached the task's cap.
        inner_steps: steps of inner training, every member counted; what a derivative adds to them is not.
        sequential_steps: the same for one member alone: what no number of machines can shorten.
        clipped_frac: entries of the members' gradients, or loss differences, that the estimator clipped, in [0, 1].
    """

    grad: Theta
    loss: float
    loss_se: float
    nonfinite: int
    diverged: int
    inner_steps: int
    sequential_steps: int = 0
    clipped_frac: float = 0.0


class Estimator(Protocol):
    """Holds the inner runs of one shard and estimates meta-gradients on them."""

    def estimate(self, theta: Theta, outer_step: int) -> MetaGradient:
        """Return the meta-gradient of the next window at `theta`; advances the runs."""

    def state(self) -> dict[str, Any]:
        """Return all that the next estimate depends on besides theta: nested dicts of tensors and lists of integers."""

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""


class Recipe(Protocol):
    """Options of an estimator; `name` is its registry name, `window` the inner steps of one estimate.

    Optional: `truncated = True`, for one whose estimates leave out what happens after a window; its window then is how far a learner plans
    ahead, and cards say so.
    """

    @property
    def name(self) -> str:
        """Registry name."""

    @property
    def window(self) -> int:
        """Inner steps of one estimate, at most the shortest horizon."""

    def build(self, learner: Learner, episodes: Episodes, pairs: int, seed: int, device: str = "cpu", compiled: bool = False) -> Estimator:
        """Return an estimator that has not begun.

        Args:
            learner: what is meta-trained.
            episodes: where the inner runs' tasks come from.
            pairs: N antithetic pairs; an estimator that perturbs nothing runs 2 N single particles instead, about the same memory.
            seed: of all its random numbers.
            device: where the runs live.
            compiled: compile the inner step, where the estimator can.
        """


def check_differentiable(learner: Learner, name: str) -> None:
    """Raise unless derivatives can pass through a learner.

    Raises:
        ConfigError: it runs outside torch's function transforms, particle by particle; only evolution strategies can use it.
    """
    if not is_vectorised(learner):
        raise ConfigError(f"estimator {name} differentiates inner training, which {type(learner).__name__} does not allow; use nres")
