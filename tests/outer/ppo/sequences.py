"""Episodes of known content for the tests of the PPO update."""

import torch

from metaopt import seeds
from metaopt.learners.policies import NetworkShape, PolicyNetwork, log_prob, sample
from metaopt.outer.ppo import Critic, Episodes

NVEC = (4, 2, 3)
INPUTS, EXTRA, HIDDEN = 5, 2, 8
KEY = seeds.key("test ppo")


def networks(seed: int = 0, nvec: tuple[int, ...] = NVEC) -> tuple[PolicyNetwork, Critic]:
    """Return a policy whose actions matter (its heads are not near uniform) and a critic that expects something."""
    key = seeds.fold_in(KEY, 1000 + seed)
    network = PolicyNetwork(NetworkShape(INPUTS, HIDDEN, nvec), key)
    critic = Critic(INPUTS + EXTRA, HIDDEN, seeds.fold_in(key, 1))
    with torch.no_grad():
        network.heads.weight *= 50.0
        critic.head.weight += 0.3 * seeds.normal(seeds.fold_in(key, 2), critic.head.weight.shape)
    return network, critic


def played(lengths: list[int], network: PolicyNetwork, critic: Critic, seed: int = 0, padding: int = 0, masks: bool = True) -> Episodes:
    """Return episodes of these lengths, played by the policy in noise; rewards are noise too; some heads are masked."""
    key, episodes, steps = seeds.fold_in(KEY, seed), len(lengths), max(lengths)
    heads = len(network.nvec)

    def draw(stream: int, *shape: int) -> torch.Tensor:
        return seeds.normal(seeds.fold_in(key, stream), shape)

    pi, v = draw(0, steps, episodes, INPUTS), draw(1, steps, episodes, EXTRA)
    mask = seeds.uniform(seeds.fold_in(key, 2), (episodes, heads)) < (0.7 if masks else 2.0)
    with torch.no_grad():
        logits, _ = network(pi)
        action = sample(logits, seeds.uniform(seeds.fold_in(key, 3), (steps, episodes, heads)), network.nvec)
        old = log_prob(logits, action, network.nvec, mask) + 0.1 * draw(4, steps, episodes)  # an older policy acted
        value = critic(pi, v)
    valid = torch.arange(steps).unsqueeze(-1) < torch.tensor(lengths)
    bootstrap = torch.where(torch.arange(episodes) % 2 == 0, draw(6, episodes), 0.0)
    whole = Episodes(pi, v, action, mask, old, value, draw(5, steps, episodes), valid, bootstrap, version=seed)
    return spoiled(whole, padding)


def spoiled(episodes: Episodes, padding: int) -> Episodes:
    """Return the same episodes with more padding, and nonsense in all of it."""
    count = episodes.valid.shape[1]
    valid = torch.cat([episodes.valid, torch.zeros(padding, count, dtype=torch.bool)])

    def fill(tensor: torch.Tensor, nonsense: float) -> torch.Tensor:
        longer = torch.cat([tensor, tensor.new_zeros((padding, *tensor.shape[1:]))])
        hole = ~valid.reshape(*valid.shape, *[1] * (tensor.dim() - 2))
        return longer.masked_fill(hole, nonsense)

    return Episodes(
        pi=fill(episodes.pi, torch.nan),
        v=fill(episodes.v, torch.inf),
        action=fill(episodes.action, 99),
        head_mask=episodes.head_mask,
        log_prob=fill(episodes.log_prob, torch.nan),
        value=fill(episodes.value, torch.nan),
        reward=fill(episodes.reward, torch.nan),
        valid=valid,
        bootstrap=episodes.bootstrap,
        version=episodes.version,
    )
