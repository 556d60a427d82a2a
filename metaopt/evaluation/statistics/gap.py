"""The meta-generalization gap: what a learner loses between tasks like those it was meta-trained on and tasks of another split.

Source: Cobbe et al., 2019, "Quantifying generalization in reinforcement learning" (the gap between training and test levels). Differs: the
interval belongs to the difference, with the meta-seeds resampled for both splits together.
"""

import numpy as np

from metaopt.evaluation.statistics.aggregates import interquartile_mean
from metaopt.evaluation.statistics.improvement import paired_difference
from metaopt.evaluation.statistics.named_axes import ScoreCube
from metaopt.evaluation.statistics.resampling import CONFIDENCE, RESAMPLES, Interval, Statistic

__all__ = ["generalization_gap"]


def generalization_gap(
    trained: ScoreCube,
    split: ScoreCube,
    generator: np.random.Generator,
    statistic: Statistic = interquartile_mean,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    *,
    new_tasks: bool = False,
) -> Interval:
    """Return statistic(trained) - statistic(split) with its interval; positive means that the split is harder for the learner.

    Both cubes hold the same meta-trainings, so each resample draws meta-seeds once for both. Tasks and inner seeds are drawn for each
    split, unless both cubes have the same ones.

    Args:
        trained: scores [M, J, K] on the families of meta-training with new seeds; higher is better, comparable between tasks.
        split: scores [M, J', K'] of the same meta-seeds on another split.
        generator, resamples, confidence, new_tasks: see `bootstrap`.
        statistic: an aggregate of one cube.

    Raises:
        ValueError: the cubes hold different meta-seeds.
    """
    if trained.meta_seeds != split.meta_seeds:
        raise ValueError(f"both splits must hold the same meta-seeds, got {trained.meta_seeds} and {split.meta_seeds}")

    return paired_difference(trained, split, generator, statistic, resamples, confidence, new_tasks=new_tasks, shared_runs=False)
