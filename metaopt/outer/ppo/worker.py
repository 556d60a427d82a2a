"""What a worker of policy training runs: groups of episodes with the policy that comes with them, and before that reference curves.

A worker keeps nothing between two pieces that could change a result: whoever plays a group gets the same episodes.
"""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from metaopt.baselines.budget_losses import BudgetWorker
from metaopt.baselines.budget_runs import BudgetRuns
from metaopt.baselines.runs import Curves
from metaopt.cluster import Shared, WorkItem
from metaopt.config import PolicyConfig
from metaopt.config.policy import PolicyStageConfig
from metaopt.errors import TaskError
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec
from metaopt.outer.ppo.collect import Played, play
from metaopt.outer.ppo.critic import Critic
from metaopt.outer.ppo.worlds import World
from metaopt.seeds import key, stable_hash

__all__ = ["CollectSetup", "CollectWorker", "GroupWork", "Rejected", "fresh_networks", "policy_spec"]

_REDRAWS = 8  # buckets that cannot be scored, after which a group is given up

Weights = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class GroupWork:
    """Payload of a work item: play the group of a seed.

    Attributes:
        policy: weights of `network` and `critic`.
        version: outer steps that the policy has behind it.
        seed: of the group; bucket, environment and actions are functions of it.
        stage: what the curriculum admits.
    """

    policy: Shared[Weights]
    version: int
    seed: int
    stage: PolicyStageConfig


@dataclass(frozen=True)
class Rejected:
    """No bucket of a group could be scored: there were `count`, the last one for `reason`."""

    count: int
    reason: str


def policy_spec(config: PolicyConfig) -> PolicySpec:
    """Return what is fixed about the policy of a config."""
    section = config.learner
    return PolicySpec(section.table, section.hidden, section.knobs, section.registers, section.inner)


def fresh_networks(config: PolicyConfig, world: World) -> tuple[PolicyNetwork, Critic]:
    """Return a policy and its critic as they are before the first update."""
    spec = policy_spec(config)
    network = PolicyNetwork(spec, key("policy", config.seed))
    return network, Critic(spec.inputs + world.critic_inputs, spec.hidden, key("critic", config.seed))


@dataclass(frozen=True)
class CollectSetup:
    """Recipe of a worker of one training run."""

    config: PolicyConfig
    world: World

    def build(self) -> "CollectWorker":
        """Return a worker with an environment of its own."""
        return CollectWorker(self.config, self.world)


class CollectWorker:
    """Plays groups."""

    def __init__(self, config: PolicyConfig, world: World) -> None:
        self._world, self._group = world, world.make()
        self._network, self._critic = fresh_networks(config, world)

    def handle(self, item: WorkItem) -> Played | Rejected | Curves:
        """Return the episodes of the item's group; buckets that cannot be scored are drawn again. Or the curves of a reference."""
        work: GroupWork | BudgetRuns = item.payload
        if isinstance(work, BudgetRuns):
            return BudgetWorker().handle(item)
        weights = work.policy.get()
        self._network.load_state_dict(weights["network"])
        self._critic.load_state_dict(weights["critic"])
        reason: Any = None
        for redraw in range(_REDRAWS):
            seed = work.seed if redraw == 0 else stable_hash("redraw", work.seed, redraw)
            bucket = self._world.draw(seed, work.stage)
            try:
                played = play(self._group, self._network, self._critic, bucket, seed, work.version)
            except TaskError as error:
                reason = error
                continue
            return replace(played, rejected=played.rejected + redraw)
        return Rejected(_REDRAWS, str(reason))
