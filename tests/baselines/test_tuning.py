"""Tuning: other seeds than evaluation, the best trial of each budget, references with longer schedules."""

import numpy as np
import pytest

from metaopt import baselines, tasks
from metaopt.baselines import (
    Curves,
    Store,
    envelope_key,
    evaluation_key,
    evaluation_seeds,
    recorded_keys,
    reference_keys,
    seed_blocks,
    tune,
    tuning_keys,
)

SPEC = tasks.get("quadratic").sample("6x6-minimum", 3, (20, 20))


def made_curves(key, loss_of_trial, diverged=()):
    losses = np.repeat([loss_of_trial(trial) for trial in key.trials], len(key.seeds))
    bad = np.repeat([trial in diverged for trial in key.trials], len(key.seeds))
    heldout = np.stack([np.ones_like(losses), losses])
    return Curves(np.array([0.0, 20.0]), heldout, heldout, bad)


def tuned(name, loss_of_trial, diverged=(), trials=15):
    keys = tuning_keys(SPEC, baselines.get(name), trials)
    return tune(keys, {key: made_curves(key, loss_of_trial, diverged) for key in keys}, cap=10.0)


def test_tuning_and_evaluation_seeds_are_disjoint():
    (key,) = tuning_keys(SPEC, baselines.get("sgd"))
    later = set(evaluation_seeds(SPEC, 0, 1000))
    assert not set(key.seeds) & later
    assert not set(envelope_key(SPEC).seeds) & later
    assert len(key.trials) == 15


@pytest.mark.parametrize("trials", [1, 5, 15])
def test_small_budgets_share_one_program(trials):
    assert tuning_keys(SPEC, baselines.get("sgd"), trials) == tuning_keys(SPEC, baselines.get("sgd"))


def test_large_budgets_have_further_keys_and_keep_the_first():
    baseline = baselines.get("adamw")
    keys = tuning_keys(SPEC, baseline, 100)
    assert keys[0] == tuning_keys(SPEC, baseline)[0]
    assert tuple(trial for key in keys for trial in key.trials) == baseline.trials(100)
    assert max(len(key.trials) for key in keys) <= 30
    assert tuning_keys(SPEC, baseline, 40) == keys[:2]


def test_every_budget_gets_its_own_best_trial():
    design = baselines.get("adamw").trials(15)
    target = design[7]  # neither the default nor one of the five
    found = tuned("adamw", lambda trial: 0.0 if trial == target else 1.0 + abs(np.log(trial.rate / design[3].rate)))
    assert found.trials[1] == design[0]
    assert found.trials[5] == design[3]
    assert found.trials[15] == target
    assert found.loss == 0.0
    assert len(found.finals) == 15
    assert found.finals[7] == 0.0


def test_a_hundred_trials_are_recorded_and_change_nothing_else():
    design = baselines.get("adamw").trials(100)
    few, many = (tuned("adamw", lambda trial: 1.0 - design.index(trial) / 1000, trials=count) for count in (15, 100))
    assert {count: trial == design[count - 1] for count, trial in many.trials.items()} == {1: True, 5: True, 15: True}
    assert (many.trials, many.loss) == (few.trials, few.loss)
    assert many.finals[:15] == few.finals
    assert len(many.finals) == 100
    assert list(many.finals) == sorted(many.finals, reverse=True)
    assert evaluation_key(SPEC, many, 0) == evaluation_key(SPEC, few, 0)
    assert reference_keys(SPEC, [many], 0) == reference_keys(SPEC, [few], 0)


def test_more_trials_are_used_only_where_all_are_recorded(tmp_path):
    baseline, shelf = baselines.get("sgd"), Store((tmp_path,))
    usual, every = tuning_keys(SPEC, baseline), tuning_keys(SPEC, baseline, 100)
    assert recorded_keys(SPEC, baseline, shelf) == usual
    for key in every[:-1]:
        shelf.put(key, made_curves(key, lambda trial: trial.rate))
    assert recorded_keys(SPEC, baseline, shelf) == usual
    shelf.put(every[-1], made_curves(every[-1], lambda trial: trial.rate))
    assert recorded_keys(SPEC, baseline, shelf) == every


def test_a_diverged_trial_never_wins():
    best = baselines.get("adamw").trials(15)[4]
    found = tuned("adamw", lambda trial: 0.1 if trial == best else 0.5, diverged=(best,))
    assert found.trials[15] != best
    assert found.finals[4] == 10.0


def test_equal_trials_go_to_the_earliest():
    assert tuned("adamw", lambda trial: 0.5).trials[15] == baselines.get("adamw").default()


def test_the_reference_is_the_best_of_all_with_longer_schedules():
    pair = [tuned("sgd", lambda trial: 0.3), tuned("adamw+wsd", lambda trial: 0.2)]
    references = reference_keys(SPEC, pair, 0)
    assert [key.baseline.name for key in references] == ["adamw+wsd", "adamw+wsd"]
    assert [key.spec.horizon for key in references] == [40, 80]
    assert references[0].seeds == evaluation_seeds(SPEC, 0, 5), "seeds of the task itself, so that references pair with learners"


def test_the_envelope_has_enough_constant_rates_seeds_and_steps():
    key = envelope_key(SPEC)
    assert (key.baseline.rule, key.baseline.schedule) == ("adam", "constant")
    assert len(key.trials) >= 14
    assert len(key.seeds) == 5
    assert key.spec.horizon == 4 * SPEC.horizon
    assert len({trial.rate for trial in key.trials}) == len(key.trials)


def test_seeds_come_in_blocks():
    assert [len(seed_blocks(count)) for count in (1, 5, 6, 11)] == [1, 1, 2, 3]
    found = tuned("sgd", lambda trial: trial.rate)
    both = evaluation_key(SPEC, found, 0).seeds + evaluation_key(SPEC, found, 1).seeds
    assert both == evaluation_seeds(SPEC, 0, 10)
    assert set(evaluation_key(SPEC, found, 0).trials) == set(found.trials.values())
