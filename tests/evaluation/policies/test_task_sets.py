"""Which tasks a policy is evaluated on."""

import pytest

from metaopt import tasks
from metaopt.errors import ConfigError
from metaopt.evaluation.policies import (
    SETS,
    default_sets,
    held_out_draws,
    held_out_families,
    long_horizons,
    named_set,
    tiny_tables,
    trained_families,
)
from metaopt.learners.policies.timing import decision_steps
from metaopt_envs import PoolFamily, TaskPool
from tests.evaluation.policies.made_policies import constant

TRAINED = (PoolFamily("quadratic", (16, 64), 2.0), PoolFamily("digits_mlp", (32, 128), 1.0, 3))


def hashes(buckets):
    return {spec.hash for bucket in buckets for spec in bucket.specs()}


def test_held_out_draws_are_new_tasks_of_the_same_templates():
    trained = [bucket for kind in TaskPool(TRAINED).kinds.values() for bucket in kind]
    held = held_out_draws(TRAINED, tasks=4, templates=0).buckets
    assert not hashes(held) & hashes(trained)
    assert {one.template for one in held} == {one.template for one in trained}
    for bucket in held:
        low, high = next(one.horizon for one in TRAINED if one.name == bucket.family)
        assert low <= bucket.horizon <= high
        assert bucket.decisions == len(decision_steps(bucket.horizon, 32))


def test_templates_are_bounded_by_the_argument_and_by_training():
    found = held_out_draws(TRAINED, templates=4).buckets
    assert {name: len({one.template for one in found if one.family == name}) for name in ("quadratic", "digits_mlp")} == {
        "quadratic": 4,
        "digits_mlp": 3,
    }


def test_held_out_families_are_new_and_their_templates_too():
    found = held_out_families(TRAINED, ("digits_mlp", "binary_addition"))
    assert {one.family for one in found.buckets} == {"binary_addition"}
    assert {one.template for one in found.buckets} <= set(tasks.get("binary_addition").templates("meta_test"))
    with pytest.raises(ConfigError, match="no family is held out"):
        held_out_families(TRAINED, ("quadratic",))


def test_tiny_tables_and_long_runs():
    assert {one.family for one in tiny_tables(TRAINED).buckets} == {"tabular_classification", "tabular_regression"}
    long = long_horizons(TRAINED, 10)
    assert {one.horizon for one in long.buckets} == {1280}
    assert not long.full
    assert [one.family for one in long_horizons(TRAINED, 100, 1).buckets] == ["quadratic"]


def test_sets_come_from_the_card():
    entries = [
        {"family": one.name, "weight": one.weight, "horizon": list(one.horizon), "templates": one.templates or None} for one in TRAINED
    ]
    artifact = constant()
    artifact.card["training"]["distribution"] = entries
    assert trained_families(artifact) == TRAINED
    names = ["held-out draws", "held-out families", "tiny tables", "10x horizon", "100x horizon"]
    assert [one.name for one in default_sets(artifact)] == names
    assert {named_set(name, TRAINED).name for name in SETS} == {one.name for one in default_sets(artifact)}
    with pytest.raises(ConfigError, match="'draw' is unknown; did you mean 'draws'"):
        named_set("draw", TRAINED)
