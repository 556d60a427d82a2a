"""Which modules stand behind an optimizer."""

from metaopt import baselines
from metaopt.baselines import optimizer_code as module


def behind(name):
    return {one.removeprefix("metaopt.learners.") for one in module.optimizer_modules(baselines.get(name).learner())}


def test_an_optimizer_is_made_of_what_it_imports():
    assert {"update_rules.muon", "update_rules.newton_schulz", "update_rules.classic", "update_rules.rule"} <= behind("muon")
    assert {"prodigy", "whole_model", "learner", "update_rules.classic"} <= behind("prodigy")


def test_a_hypergradient_optimizer_is_made_of_its_tower_and_its_base():
    found = behind("hypergradient_adamw")
    assert {"hypergradients.learner", "hypergradients.towers", "whole_model", "update_rules.classic"} <= found
    assert "prodigy" not in found


def test_other_optimizers_do_not_count():
    assert "update_rules.newton_schulz" not in behind("adamw")
    assert "prodigy" not in behind("schedule_free_adamw")
    assert "update_rules.muon" not in behind("lion")
    assert not any(name.startswith("update_rules.celo2") for name in behind("muon"))


def test_schedules_and_options_are_no_code():
    codes = {name: module.optimizer_code(baselines.get(name).learner()) for name in ("adamw", "adamw+wsd", "sgd", "muon", "lion")}
    assert codes["adamw"] == codes["adamw+wsd"] == codes["sgd"], "one module"
    assert len(set(codes.values())) == 3
    assert all(len(code) == 16 for code in codes.values())
