"""Whoever sees only what a policy sees cannot tell how the loss is scaled: a linear probe does no better than the mean."""

import functools

import numpy as np
import pytest
import torch
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from metaopt import optim, seeds
from metaopt.learners.policies import INPUTS
from tests.optim.policies import Run, policy

RUNS, TRAINED_ON = 60, 42


@functools.cache
def runs(eps_mode: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs of all decisions [R, decisions * 161], log losses at decisions [R, decisions], and log2 of the drawn scales [R]."""
    artifact = policy(seed=3)
    draws = seeds.uniform(seeds.key("scales of a probe"), (RUNS, 2), torch.float64)
    inputs, losses = [], []
    for rate, scale in draws.tolist():
        # Rates differ, so that no two runs are alike; they have nothing to do with the scales.
        run = Run(
            lambda params, rate=rate: optim.UnitlessAdam(params, lr=1e-3 * 10 ** (2 * rate - 1), eps=1e-3, eps_mode=eps_mode),
            artifact,
            scale=2.0 ** (20 * scale - 10),
            heldout=True,
        )
        run.advance()
        log = run.log
        inputs.append(np.concatenate([decision["inputs"] for decision in log]))
        losses.append([np.log(decision["train_loss"]) for decision in log])
    return np.array(inputs), np.array(losses), 20 * draws[:, 1].numpy() - 10


def explained(features: np.ndarray, target: np.ndarray) -> float:
    """R^2 on the last runs of a ridge regression on the first ones; 0 is as good as their mean, and worse is below."""
    probe = make_pipeline(VarianceThreshold(1e-6), StandardScaler(), RidgeCV(alphas=np.logspace(-2, 5, 15)))
    probe.fit(features[:TRAINED_ON], target[:TRAINED_ON])
    found: float = probe.score(features[TRAINED_ON:], target[TRAINED_ON:])
    return found


def test_inputs_do_not_tell_the_scale_of_the_loss() -> None:
    inputs, _, scale = runs("relative")
    assert explained(inputs, scale) < 0.1
    assert explained(inputs[:, :INPUTS], scale) < 0.1


def test_the_probe_would_find_it_in_the_loss() -> None:
    _, losses, scale = runs("relative")
    assert explained(losses, scale) > 0.9


@pytest.mark.slow
def test_the_probe_finds_it_where_epsilon_has_a_unit() -> None:
    inputs, _, scale = runs("absolute")
    assert explained(inputs[:, :INPUTS], scale) > 0.4
