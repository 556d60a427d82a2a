"""Tunability: what a learner or baseline gives at its default, and after a number of tuning trials.

Legend: N recorded trials, K trials that one may spend.

Source: Schneider et al., 2019, "DeepOBS: a deep learning optimizer benchmark suite" (performance at several tuning budgets); Dodge et al.,
2019, "Show your work: improved reporting of experimental results" (expected best of K, equation 3). Differs: a trial is picked by its loss
on tuning seeds and scored on others, so that the best of many is not the luckiest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaopt.baselines import expected_best

__all__ = ["Tunability", "expected_best", "tunability"]

TRIALS = (5, 15)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tunability:
    """Scores by tuning budget, each of the shape of one trial's outcome.

    Attributes:
        default: at the documented default, no trial spent.
        after: number of trials K -> expected score of the best of K.
    """

    default: Array
    after: dict[int, Array]


def tunability(default: Array, tuning_loss_N: Array, outcome: Array, trials: Sequence[int] = TRIALS) -> Tunability:
    """Return the score at the default and after each number of trials, for a learner that has something to tune.

    Args:
        default: outcome of the default configuration [...].
        tuning_loss_N, outcome: as in `expected_best`.
        trials: budgets K.

    Raises:
        ValueError: see `expected_best`.
    """
    return Tunability(np.asarray(default, dtype=np.float64), {k: expected_best(tuning_loss_N, outcome, k) for k in trials})
