"""Cubes of scores for tests."""

import numpy as np

from metaopt.evaluation.statistics.named_axes import AXES, ScoreCube


def cube(values, **names):
    """A cube of values [M, J, K] with made-up names."""
    values = np.asarray(values, dtype=float)
    _, tasks, seeds = values.shape
    return ScoreCube(values, **({"tasks": tuple(f"task{i:02}" for i in range(tasks)), "seeds": tuple(range(seeds)), "axes": AXES} | names))


def random_cube(seed, tasks=4, seeds=5, meta_seeds=1):
    """Independent standard normal scores."""
    return cube(np.random.default_rng(seed).normal(size=(meta_seeds, tasks, seeds)))


def permuted(scores, order):
    """The same cube with its tasks handed over in another order."""
    names = tuple(scores.tasks[i] for i in order)
    return ScoreCube(scores.values[:, order], names, scores.seeds, scores.meta_seeds, axes=AXES, times=scores.times)
