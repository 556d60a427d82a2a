"""Tuning: other seeds than evaluation, the best rate of each budget, references with longer schedules."""

import numpy as np

from metaopt import baselines, tasks
from metaopt.baselines import Curves, evaluation_key, evaluation_seeds, reference_keys, seed_blocks, tune, tuning_key

SPEC = tasks.get("quadratic").sample("6x6-minimum", 3, (20, 20))


def made_curves(key, loss_of_rate, diverged=()):
    losses = np.repeat([loss_of_rate(rate) for rate in key.rates], len(key.seeds))
    bad = np.repeat([rate in diverged for rate in key.rates], len(key.seeds))
    heldout = np.stack([np.ones_like(losses), losses])
    return Curves(np.array([0.0, 20.0]), heldout, heldout, bad)


def test_tuning_and_evaluation_seeds_are_disjoint():
    key = tuning_key(SPEC, baselines.get("sgd"))
    assert not set(key.seeds) & set(evaluation_seeds(SPEC, 0, 1000))
    assert len(key.rates) == 15


def test_every_budget_gets_its_own_best_rate():
    key = tuning_key(SPEC, baselines.get("adamw"))
    target = key.rates[7]  # neither the default nor one of the five
    tuned = tune(key, made_curves(key, lambda rate: abs(np.log(rate / target))), cap=10.0)
    assert tuned.rates[1] == 1e-3
    assert tuned.rates[15] == target
    assert tuned.rates[5] in (key.rates[5], key.rates[8])
    assert tuned.loss == 0.0


def test_a_diverged_rate_never_wins():
    key = tuning_key(SPEC, baselines.get("adamw"))
    best = key.rates[4]
    tuned = tune(key, made_curves(key, lambda rate: 0.1 if rate == best else 0.5, diverged=(best,)), cap=10.0)
    assert tuned.rates[15] != best


def test_equal_rates_go_to_the_smallest():
    key = tuning_key(SPEC, baselines.get("adamw"))
    assert tune(key, made_curves(key, lambda rate: 0.5), cap=10.0).rates[15] == key.rates[0]


def test_the_reference_is_the_best_of_all_with_longer_schedules():
    keys = [tuning_key(SPEC, baselines.get(name)) for name in ("sgd", "adamw")]
    tuned = [tune(key, made_curves(key, lambda rate, loss=loss: loss), cap=10.0) for key, loss in zip(keys, (0.3, 0.2), strict=True)]
    references = reference_keys(SPEC, tuned, 0)
    assert [key.baseline.name for key in references] == ["adamw", "adamw"]
    assert [key.spec.horizon for key in references] == [40, 80]
    assert references[0].seeds == evaluation_seeds(SPEC, 0, 5), "seeds of the task itself, so that references pair with learners"


def test_seeds_come_in_blocks():
    assert [len(seed_blocks(count)) for count in (1, 5, 6, 11)] == [1, 1, 2, 3]
    key = tuning_key(SPEC, baselines.get("sgd"))
    tuned = tune(key, made_curves(key, lambda rate: rate), cap=10.0)
    both = evaluation_key(SPEC, tuned, 0).seeds + evaluation_key(SPEC, tuned, 1).seeds
    assert both == evaluation_seeds(SPEC, 0, 10)
