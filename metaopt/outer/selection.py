"""Which theta becomes the artifact, and when it is time to stop: two rules on the losses of one fixed set of particles.

A validation's loss is that of its best candidate, theta or its average. *Best*: the candidate with the lowest mean loss of all validations,
the first of equals. *Early stop*: a validation counts as an improvement if its paired mean difference to the last one that counted is below
minus its own standard error; after `patience` validations in a row that do not count, the run ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from metaopt.learners.update_rules import Theta
from metaopt.outer.validation import paired

__all__ = ["Selection"]

_NORMAL_95 = 1.96


@dataclass
class Selection:
    """The best theta so far and the state of the early stop.

    Attributes:
        patience: validations without an improvement that end the run, or None.
        validated: outer steps done at the last validation, -1 before the first.
        last_score: its mean loss, or None if nothing could be measured.
        best_step: outer steps done when the best theta was met, -1 before the first.
        best_kind: "last" or "average".
        best_theta: the best theta.
        best: its losses [n] by job.
        anchor: losses of the last validation that counted as an improvement.
        waiting: validations since.
        given_up: jobs that failed for good; no comparison uses them.
    """

    patience: int | None = None
    validated: int = -1
    last_score: float | None = None
    best_step: int = -1
    best_kind: str = "last"
    best_theta: Theta = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    anchor: dict[str, Tensor] = field(default_factory=dict)
    waiting: int = 0
    given_up: list[str] = field(default_factory=list)

    @property
    def exhausted(self) -> bool:
        """Whether the run has to end."""
        return self.patience is not None and self.waiting >= self.patience

    @property
    def score(self) -> tuple[float, float, float]:
        """Mean loss of the best theta with its 95 % normal interval; not-a-number before the first validation."""
        mean, se = paired(self.best)
        return mean, mean - _NORMAL_95 * se, mean + _NORMAL_95 * se

    def consider(self, step: int, candidates: Mapping[str, Theta], losses: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        """Take in one validation after `step` outer steps; return its numbers for the metrics.

        Args:
            candidates: thetas by kind (`average`, `last`).
            losses: of each kind, the losses [n] by job.
        """
        kind = min(candidates, key=lambda name: (paired(losses[name])[0], list(candidates).index(name)))
        now = losses[kind]
        self.best = {name: self.best[name] for name in now if name in self.best}
        self.anchor = {name: self.anchor[name] for name in now if name in self.anchor}
        loss, loss_se = paired(now)
        change, change_se = paired(now, self.anchor) if self.anchor else (0.0, 0.0)
        improved = bool(now) and (not self.anchor or change < -change_se)
        self.validated, self.last_score = step, loss if now else None
        if now and (not self.best or paired(now, self.best)[0] < 0):
            self.best_step, self.best_kind, self.best_theta, self.best = step, kind, dict(candidates[kind]), dict(now)
        if improved:
            self.anchor, self.waiting = dict(now), 0
        else:
            self.waiting += 1
        numbers = {"kind": kind, "loss": loss, "loss_se": loss_se, "change": change, "change_se": change_se, "improved": improved}
        return {**numbers, "waiting": self.waiting, "best_step": self.best_step}

    def state(self) -> dict[str, Any]:
        """Return everything but `patience`, for a checkpoint."""
        return {name: value for name, value in vars(self).items() if name != "patience"}

    @staticmethod
    def of(patience: int | None, state: dict[str, Any] | None) -> "Selection":
        """Return a selection that continues from what `state` returned, or begins."""
        return Selection(patience, **(state or {}))
