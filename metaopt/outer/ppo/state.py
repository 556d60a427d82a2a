"""What PPO trains: policy, critic, Adam, and the running mean of policies that is exported.

An update happens whole or not at all: one that leaves a number that is not finite is taken back.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from metaopt.config import PolicyConfig
from metaopt.learners.policies.knobs import HEADS
from metaopt.outer.average import ThetaAverage
from metaopt.outer.ppo.episodes import Episodes
from metaopt.outer.ppo.update import make_optimizer, update
from metaopt.outer.ppo.worker import Weights, fresh_networks
from metaopt.outer.ppo.worlds import World
from metaopt.seeds import key

__all__ = ["PPOState"]

_ENTROPY = "entropy_"


class PPOState:
    """Policy, critic, optimizer and average; `learn` changes all of them.

    Args:
        config: of the run.
        world: tells how much the critic sees.
        device: where updates are computed.
    """

    def __init__(self, config: PolicyConfig, world: World, device: str = "cpu") -> None:
        self._config, self._device = config, device
        self.settings = config.outer.ppo
        network, critic = fresh_networks(config, world)
        self.network, self.critic = network.to(device), critic.to(device)
        self.optimizer = make_optimizer(self.network, self.critic, self.settings)
        self.average = ThetaAverage(config.outer.average_decay)

    @property
    def weights(self) -> Weights:
        """What workers play with: copies on the CPU."""
        return {"network": _copied(self.network.state_dict()), "critic": _copied(self.critic.state_dict())}

    @property
    def averaged(self) -> dict[str, Tensor]:
        """The state of the policy that is exported: the running mean of all policies so far, with the counters of the last one."""
        last = _copied(self.network.state_dict())
        return last | self.average.value({name: value for name, value in last.items() if value.is_floating_point()})

    def learn(self, step: int, parts: Sequence[Episodes]) -> dict[str, float] | None:
        """Make the update of outer step `step`; return its statistics, or None if it was not finite and nothing has changed.

        Entropies are named by head; a head that no episode had is left out. `skipped_batches` had gradients that were not finite: an update
        of nothing else is none.
        """
        share = step / self._config.outer.steps
        self.optimizer.param_groups[0]["lr"] = self.settings.lr * (1 - share * (1 - self._config.outer.final_lr_frac))
        episodes = Episodes.join(parts)
        if self._device != "cpu":
            moved = {field.name: getattr(episodes, field.name).to(self._device) for field in fields(episodes) if field.name != "version"}
            episodes = replace(episodes, **moved)
        before = copy.deepcopy((self.network.state_dict(), self.critic.state_dict(), self.optimizer.state_dict()))
        found = update(self.network, self.critic, self.optimizer, episodes, self.settings, key("update", self._config.seed, step))
        states = [*self.network.state_dict().values(), *self.critic.state_dict().values()]
        if (not found["steps"] and found["skipped"]) or not all(bool(torch.isfinite(value).all()) for value in states):
            self.network.load_state_dict(before[0])
            self.critic.load_state_dict(before[1])
            self.optimizer.load_state_dict(before[2])
            return None
        self.average.add({name: value for name, value in _copied(self.network.state_dict()).items() if value.is_floating_point()})
        return _named(found, episodes.head_mask.any(0).tolist())

    def state(self) -> dict[str, Any]:
        """Return everything, for a checkpoint."""
        return {**self.weights, "optimizer": self.optimizer.state_dict(), "average": self.average.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.network.load_state_dict(state["network"])
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load(state["average"])


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


def _named(found: Mapping[str, float], there: Sequence[bool]) -> dict[str, float]:
    named = {name: value for name, value in found.items() if not name.startswith(_ENTROPY) and name != "skipped"}
    named |= {_ENTROPY + head: found[f"{_ENTROPY}{i}"] for i, head in enumerate(HEADS) if there[i]}
    return named | {"skipped_batches": found["skipped"]}
