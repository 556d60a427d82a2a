"""Untrained policies that decide, policies that always choose the same, and small sets of tasks to evaluate them on."""

import torch

from metaopt import seeds
from metaopt.artifacts.policy import policy_artifact
from metaopt.evaluation.policies import TaskSet
from metaopt.learners.policies.knobs import HEADS, TABLES
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec
from metaopt_envs import Bucket

KEEP = {"registers": 0, "lr": 3, "weight_decay": 1, "epsilon": 1, "one_minus_beta2": 1, "one_minus_beta1": 1, "clip_ratio": 2}
BUCKET = Bucket("quadratic", "10x1-gradient", 20, 4, (1, 2))
SMALL = TaskSet("small", (BUCKET,))


def loud(seed=0, hidden=12, name="loud", **card):
    """A policy whose choices depend on what it sees."""
    network = PolicyNetwork(PolicySpec(hidden=hidden), seeds.key("policy of a test", seed))
    with torch.no_grad():
        network.heads.weight.mul_(200.0)
    return policy_artifact(name, network, **card)


def constant(name="constant", limits=None, knobs=tuple(HEADS[1:]), registers=True, **choices):
    """A policy that makes the same choice of each head whatever it sees; knobs that are not named keep their values."""
    network = PolicyNetwork(PolicySpec(hidden=4, knobs=knobs, registers=registers), seeds.key("constant policy", 0))
    nvec = TABLES["wide"].nvec
    with torch.no_grad():
        network.heads.weight.zero_()
        for head, choice in ({"clip_decay": 1, "trust_decay": 1} | KEEP | choices).items():
            network.heads.bias[sum(nvec[: HEADS.index(head)]) + choice] = 1.0
    return policy_artifact(name, network, limits=limits or {})
