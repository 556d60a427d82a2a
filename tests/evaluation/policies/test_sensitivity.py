"""Sensitivity finds what a policy looks at."""

import pytest
import torch

from metaopt import seeds
from metaopt.evaluation.policies.loop import Play
from metaopt.evaluation.policies.sensitivity import GROUPS, sensitivity
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec
from metaopt.learners.policies.observation import INPUTS, LAYOUT, NAMES
from metaopt.learners.policies.unitless import STATISTICS

T, E = 6, 10


def looking_at(*groups):
    """A network that sees nothing but these groups, loud enough that it matters."""
    network = PolicyNetwork(PolicySpec(hidden=16), seeds.key("looking")).requires_grad_(False)
    seen = torch.zeros(INPUTS)
    for group in groups:
        seen[GROUPS[group]] = 1.0
    network.trunk.encode.weight.mul_(seen * 8)
    network.heads.weight.mul_(200.0)
    return network


def plays(*runs, seed=0):
    made = []
    for place, count in enumerate(runs):
        pi = seeds.normal(seeds.key("inputs", seed, place), (T, count, INPUTS))
        made.append(Play(tuple(range(T)), torch.ones(count, 8), torch.ones(T, count, 8), pi, torch.zeros(count), torch.zeros(count)))
    return made


def test_groups_are_those_of_the_layout_and_every_statistic():
    assert set(LAYOUT) < set(GROUPS)
    singles = [columns for name, columns in GROUPS.items() if name.startswith("statistic ")]
    assert len(singles) == len(STATISTICS)
    assert {len(columns) for columns in singles} == {6}
    both = set(GROUPS["statistics_raw"]) | set(GROUPS["statistics_cdf"])
    assert sorted(i for columns in singles for i in columns) == sorted(both)
    assert sorted({i for name in LAYOUT for i in GROUPS[name]}) == list(range(len(NAMES)))


@pytest.mark.parametrize("group", ["log_loss", "action_features", "progress"])
def test_only_what_is_looked_at_matters(group):
    table = sensitivity(looking_at(group), plays(E)).set_index("group")
    others = [name for name in GROUPS if name != group]
    assert table.loc[group, "kl_now"] > 0.1
    assert table.loc[group, "kl_history"] > 0.1
    assert table.loc[group, "shift_now"] > 0.01
    assert table.loc[group, "agree"] < 1.0
    assert table.loc[others, ["kl_now", "kl_history"]].abs().to_numpy().max() < 1e-9
    assert (table.loc[others, "agree"] == 1.0).all()


def test_divergences_are_not_negative_and_repeat():
    network, made = looking_at("statistics_raw", "log_loss"), plays(E)
    table = sensitivity(network, made)
    assert (table[["kl_now", "kl_history"]] >= -1e-12).all().all()
    assert table.equals(sensitivity(network, made))


def test_runs_with_as_many_decisions_trade_across_buckets():
    network = looking_at("log_loss")
    single = plays(1, 1)
    table = sensitivity(network, single).set_index("group")
    assert table.loc["log_loss", "kl_now"] > 0.0
    alone = sensitivity(network, single[:1]).set_index("group")
    assert alone.loc["log_loss"].isna().all()
    assert alone.loc["progress"].notna().all()  # decisions of one run can trade


def test_what_all_runs_share_cannot_matter():
    made = plays(E)
    made[0].pi[..., GROUPS["log_loss"]] = made[0].pi[:, :1, GROUPS["log_loss"]]
    table = sensitivity(looking_at("log_loss"), made).set_index("group")
    assert table.loc["log_loss", "kl_history"] == pytest.approx(0.0, abs=1e-12)
