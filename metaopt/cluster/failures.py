"""How often environments may fail before the run must stop: the books of a vector environment. Knows nothing about processes."""

from collections import deque
from collections.abc import Mapping

from metaopt.errors import WorkerLostError

__all__ = ["MAX_IN_A_ROW", "FailureBudget"]

MAX_IN_A_ROW = 3
WINDOW_STEPS = 1000


class FailureBudget:
    """Counts failures, and ends the run when one environment fails 3 times in a row or all of them together fail too often.

    In a row means: without an episode that came to its own end in between.

    Args:
        limit: failures allowed in any 1000 steps of single environments, [0, inf). A lost process counts once, however many it held.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._steps = 0
        self._recent: deque[int] = deque()  # at which step each failure of the window was
        self._in_a_row: dict[int, list[int]] = {}

    def step(self, environments: int) -> None:
        """Enter a step of each of so many environments."""
        self._steps += environments

    def complete(self, environment: int) -> None:
        """Enter that an episode came to its own end."""
        self._in_a_row.pop(environment, None)

    def fail(self, seeds: Mapping[int, int], reason: str) -> None:
        """Enter one failure, which cost each environment in `seeds` the episode of that seed.

        Raises:
            WorkerLostError: one of the two limits is exceeded.
        """
        for environment, seed in seeds.items():
            failed = self._in_a_row.setdefault(environment, [])
            failed.append(seed)
            if len(failed) >= MAX_IN_A_ROW:
                others = sorted(set(seeds) - {environment})
                beside = f" (in one process with environments {', '.join(map(str, others))})" if others else ""
                raise WorkerLostError(
                    f"environment {environment}{beside} failed {len(failed)} times in a row, last: {reason};"
                    f" leave its task out, or look at it with reset(seed=...), seeds {', '.join(map(str, failed))}"
                )
        self._recent.append(self._steps)
        while self._recent[0] <= self._steps - WINDOW_STEPS:
            self._recent.popleft()
        if len(self._recent) > self._limit:
            raise WorkerLostError(
                f"environments failed {len(self._recent)} times in {min(self._steps, WINDOW_STEPS)} steps, last: {reason};"
                f" look for the cause, or raise max_failures={self._limit}"
            )
