"""What an evaluation will take, told before it begins."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from metaopt.baselines.store import Store
from metaopt.evaluation.policies.rivals import wanted_runs
from metaopt.evaluation.policies.task_sets import TaskSet

__all__ = ["Cost", "expected_cost"]

_ACTORS = 6  # the policy, it without guard rails, its untrained network, random choices, and two replays
# Of one program of five to fifty runs of a small network on one core: 3 to 6 ms measured on a busy one, mostly not arithmetic.
_SECONDS_A_STEP = 0.004
_SECONDS_A_PROGRAM = 0.5  # before its first step


@dataclass(frozen=True)
class Cost:
    """What is left to compute.

    Attributes:
        programs: of baselines, each being all runs of a task that differ in rate, schedule and seed.
        kept: of these, how many are in the store.
        inner_steps: of those that are not, one after another, and of all plays of policies, which are never kept.
    """

    programs: int
    kept: int
    inner_steps: int

    def text(self, workers: int = 0) -> str:
        """Return a line about it, with a guess of the time for small networks."""
        seconds = self.inner_steps * _SECONDS_A_STEP + (self.programs - self.kept) * _SECONDS_A_PROGRAM
        kept = f"{self.kept} of {self.programs} programs of baselines are kept"
        return f"{kept}; {self.inner_steps} inner steps to go: {math.ceil(seconds / 60 / max(1, workers))} min or so"


def expected_cost(sets: Sequence[TaskSet], seeds: int, store: Store | None = None) -> Cost:
    """Return what an evaluation on sets of tasks will compute; arguments as of `evaluate.evaluate_policy`.

    Raises:
        ConfigError: a horizon below 8.
    """
    store = store or Store()
    wanted = list(dict.fromkeys(runs for one in sets for runs in wanted_runs(one, seeds)))
    missing = [runs for runs in wanted if store.get(runs) is None]
    plays = _ACTORS * sum(bucket.horizon for one in sets for bucket in one.buckets)
    return Cost(len(wanted), len(wanted) - len(missing), plays + sum(runs.budgets[-1] for runs in missing))
