"""What a run's final loss is worth: the budget that AdamW needs for it, as a logarithm.

Legend: E runs, K tasks of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaopt.baselines import reference
from metaopt.baselines.power_curve import WORST
from metaopt.baselines.reference import Against, Reference
from metaopt.baselines.store import Store
from metaopt.errors import TaskError
from metaopt.tasks import TaskSpec

__all__ = ["Scorer"]


@dataclass(frozen=True)
class Scorer:
    """The references of a group's tasks.

    Attributes:
        specs: the tasks [K].
        found: their references [K].
        rows: task of each run [E].
        against: which baseline a score compares with.
        rejected: why tasks were left out, a reason each.
    """

    specs: tuple[TaskSpec, ...]
    found: tuple[Reference, ...]
    rows: tuple[int, ...]
    against: Against
    rejected: tuple[str, ...] = ()

    @staticmethod
    def of(specs: Sequence[TaskSpec], runs: int, against: Against, store: Store | None = None) -> "Scorer":
        """Return the scorer of E runs, which take turns on the tasks; references that the store lacks are computed.

        Tasks whose baseline's curve cannot be inverted are left out.

        Raises:
            TaskError: none is left.
        """
        every = list(zip(specs, reference.references(specs, store), strict=True))
        sound = [(spec, one) for spec, one in every if one.curve(against).degenerate is None]
        rejected = tuple(str(one.curve(against).degenerate) for _, one in every if one.curve(against).degenerate is not None)
        if not sound:
            first = specs[0]
            raise TaskError(
                f"no task of {first.family} {first.template} over {first.horizon} steps can be scored: {', '.join(sorted({*rejected}))};"
                " choose other horizons or draws"
            )
        kept, found = zip(*sound, strict=True)
        return Scorer(kept, found, tuple(i % len(kept) for i in range(runs)), against, rejected)

    def score(self, loss: Tensor, failed: Tensor) -> NDArray[np.float64]:
        """Return the score of losses [E] (normalised, of the half that scores), from -3 to log 2; -3 for runs that failed.

        Raises:
            TaskError: the curve of a task's baseline cannot be inverted.
        """
        losses = np.where(failed.numpy(), np.nan, loss.double().numpy())
        found = np.empty(len(losses))
        for k, one in enumerate(self.found):
            mine = np.array(self.rows) == k
            found[mine] = reference.score(losses[mine], one, self.against)
        return np.where(np.isfinite(losses), found, WORST)

    def columns(self) -> Tensor:
        """Return what a critic may know of the baselines [E, 4]: start, and largest, median and mean final loss."""
        each = torch.tensor([(one.start, *one.summary()) for one in self.found], dtype=torch.float64)
        return each[list(self.rows)]
