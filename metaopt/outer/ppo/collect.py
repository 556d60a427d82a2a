"""Play one group of episodes with a policy: what comes out is a pure function of the weights, the bucket and the seed.

Actions are drawn by counter-based numbers: decision t of episode e has its own, whoever plays it and however often.

Legend: T decisions, E episodes, A heads, I policy inputs, V critic inputs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metaopt.learners.policies.network import PolicyNetwork, log_prob, sample
from metaopt.outer.ppo.critic import Critic
from metaopt.outer.ppo.episodes import Episodes
from metaopt.outer.ppo.worlds import Bucket, Group, Observation
from metaopt.seeds import fold_in, key, uniform

__all__ = ["Played", "play"]


@dataclass(frozen=True)
class Played:
    """A group that was played to its end.

    Attributes:
        episodes: what the update needs.
        family: of the tasks.
        failed: episodes whose inner run left the finite range.
        inner_steps: planned inner steps of all runs together.
        rejected: buckets that were drawn before this one and could not be scored, and tasks of this one.
    """

    episodes: Episodes
    family: str
    failed: int
    inner_steps: int
    rejected: int = 0

    @property
    def rewards(self) -> list[float]:
        """The sum of rewards of each episode."""
        return [float(value) for value in self.episodes.reward.double().sum(0)]

    @property
    def decisions(self) -> int:
        """Decisions that were taken, of all episodes together."""
        return self.episodes.decisions

    @property
    def finite(self) -> bool:
        """Whether nothing in it would spoil an update."""
        episodes = self.episodes
        parts = (episodes.pi, episodes.v, episodes.log_prob, episodes.value, episodes.reward)
        return all(bool(torch.isfinite(part[episodes.valid]).all()) for part in parts) and bool(torch.isfinite(episodes.bootstrap).all())


@torch.no_grad()
def play(group: Group, network: PolicyNetwork, critic: Critic, bucket: Bucket, seed: int, version: int) -> Played:
    """Play the episodes of a bucket to their end.

    Args:
        group: any environment; its state before does not matter.
        network: the policy; actions are sampled.
        critic: tells the value of every decision.
        bucket: which episodes.
        seed: 63-bit, of the environment and of the actions.
        version: of the policy, which the episodes keep.

    Raises:
        TaskError: the bucket cannot be scored.
    """
    seen, info = group.reset(seed=seed, options={"bucket": bucket})
    mask = torch.as_tensor(np.asarray(info["head_mask"]), dtype=torch.bool)
    (count, heads), rejected = mask.shape, int(info.get("rejected", 0))
    state = network.initial_state((count,))
    actions_key = key("actions", seed)
    rows: list[tuple[Tensor, ...]] = []
    over, cut, failed = torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
    for t in range(int(info["decisions"])):
        pi, v = _inputs(seen)
        logits, state = network.step(pi, state)
        action = sample(logits, uniform(fold_in(actions_key, t), (count, heads), torch.float64), network.nvec)
        action = torch.where(mask, action, 0)  # what a masked head says has no consequence, and shall have no trace
        seen, given, terminated, truncated, info = group.step(action.numpy())
        paid = torch.where(over, 0.0, torch.as_tensor(np.asarray(given), dtype=torch.float32))
        rows.append((pi, v, action, log_prob(logits, action, network.nvec, mask), paid, ~over))
        cut = cut | (~over & torch.as_tensor(np.asarray(truncated)) & ~torch.as_tensor(np.asarray(terminated)))
        over = over | torch.as_tensor(np.asarray(terminated)) | torch.as_tensor(np.asarray(truncated))
        failed = failed | torch.as_tensor(np.asarray(info.get("failed", False))).expand(count)
        if bool(over.all()):
            break
    pi, v, action, log_probs, reward, valid = (torch.stack(parts) for parts in zip(*rows, strict=True))
    value, bootstrap = _values(critic, pi, v, seen, valid, cut | ~over)
    episodes = Episodes(
        pi=pi,
        v=v,
        action=action,
        head_mask=mask,
        log_prob=log_probs,
        value=value,
        reward=reward,
        valid=valid,
        bootstrap=bootstrap,
        version=version,
    )
    return Played(episodes, bucket.family, int(failed.sum()), bucket.horizon * count, rejected)


def _inputs(seen: Observation) -> tuple[Tensor, Tensor]:
    """Return copies: an environment may write its next observation into the same array."""
    return torch.tensor(seen["pi"], dtype=torch.float32), torch.tensor(seen["v"], dtype=torch.float32)


def _values(critic: Critic, pi: Tensor, v: Tensor, seen: Observation, valid: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value of every decision [T, E], and of what is seen after the last one [E] where an episode was cut, else 0.

    Episodes of a group end at different decisions only by failing; a cut one ends with the group.
    """
    last_pi, last_v = _inputs(seen)
    value = critic(torch.cat([pi, last_pi[None]]), torch.cat([v, last_v[None]]))
    return torch.where(valid, value[:-1], 0.0), torch.where(cut, value[-1], 0.0)
