"""One PPO update from whole episodes: a pure function of weights, episodes and a key, but that it works in place.

Padding is packed away before anything is computed. Episodes are split among the minibatches, never cut.

Source: Schulman et al., 2017, "Proximal policy optimization algorithms" (1707.06347), equation 7. Differs: gradient clipping, normalised
advantages and returns, a stop at a large divergence, as is usual.

Legend: E episodes, N decisions of a minibatch, A heads.
"""

import math

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.config.policy import PPOSettings
from metaopt.learners.policies.heads import log_prob_and_entropy
from metaopt.learners.policies.network import PolicyNetwork, packed_features
from metaopt.outer.ppo.advantages import advantages, normalised
from metaopt.outer.ppo.critic import Critic
from metaopt.outer.ppo.episodes import Episodes, pack

__all__ = ["make_optimizer", "update"]


def make_optimizer(network: PolicyNetwork, critic: Critic, settings: PPOSettings) -> torch.optim.Adam:
    """Return the Adam that moves policy and critic."""
    return torch.optim.Adam([*network.parameters(), *critic.parameters()], lr=settings.lr, betas=settings.betas, fused=True)


def update(
    network: PolicyNetwork, critic: Critic, optimizer: torch.optim.Optimizer, episodes: Episodes, settings: PPOSettings, key: Tensor
) -> dict[str, float]:
    """Improve policy and critic in place, and return statistics.

    Last of all, the statistics of inputs take in the batch: within an update they are those that the policy acted with, so that the first
    ratio is 1. Those of returns take it in first.

    Args:
        network: the policy.
        critic: its critic.
        optimizer: of `make_optimizer`; its rate is the one that counts.
        episodes: at least one decision.
        settings: constants.
        key: decides which episodes meet in a minibatch.

    Returns:
        Means over the minibatches of `policy_loss`, `value_loss` (normalised returns), `entropy` (summed over heads), `entropy_<head>`
        (over the decisions that had it; 0 where none had), `kl`, `clip_fraction`, `grad_norm` (before it is shortened); then
        `explained_variance` of the returns by the critic that was there before, `epochs` (begun), `steps` (taken), `skipped` (steps whose
        gradient was not finite).
    """
    advantage, target = advantages(episodes, settings.gamma, settings.gae_lambda)
    valid = episodes.valid
    explained = _explained_variance(episodes.value[valid], target[valid])
    critic.targets.update(target.unsqueeze(-1), valid)
    whole = pack(valid)
    advantage = whole.put(normalised(whole.take(advantage)), valid)
    target = critic.targets(target.unsqueeze(-1)).squeeze(-1)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    rows: list[Tensor] = []
    norms: list[float] = []
    spread, present = (advantage.new_zeros(len(network.nvec)) for _ in range(2))
    epochs = 0
    stopped = False
    while epochs < settings.epochs and not stopped:
        for index in _batches(torch.unique(whole.episode), settings.batches, seeds.fold_in(key, epochs)):
            loss, seen, per_head, mask = _losses(network, critic, episodes, advantage, target, index, settings)
            rows.append(seen)
            spread += per_head.sum(0)
            present += mask.sum(0)
            if settings.kl_stop is not None and float(seen[3]) > settings.kl_stop:
                stopped = True
                break
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)))
            if math.isfinite(norms[-1]):
                optimizer.step()
        epochs += 1
    pi, v = whole.take(episodes.pi), whole.take(episodes.v)
    network.normaliser.update(pi)
    critic.normaliser.update(torch.cat([pi, v], dim=-1))
    finite = [norm for norm in norms if math.isfinite(norm)]
    statistics = dict(zip(("policy_loss", "value_loss", "entropy", "kl", "clip_fraction"), torch.stack(rows).mean(0).tolist(), strict=True))
    statistics |= {f"entropy_{head}": mean for head, mean in enumerate((spread / present.clamp(min=1.0)).tolist())}
    statistics |= {"grad_norm": math.fsum(finite) / len(finite) if finite else 0.0, "explained_variance": explained}
    return statistics | {"epochs": float(epochs), "steps": float(len(finite)), "skipped": float(len(norms) - len(finite))}


def _batches(index: Tensor, batches: int, key: Tensor) -> list[Tensor]:
    shuffled = index[torch.argsort(seeds.uniform(key, index.shape, torch.float64), stable=True).to(index.device)]
    return list(shuffled.tensor_split(min(batches, len(shuffled))))


def _losses(
    network: PolicyNetwork, critic: Critic, episodes: Episodes, advantage: Tensor, target: Tensor, index: Tensor, settings: PPOSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the loss of the episodes `index`; policy loss, value loss, entropy, KL and clip fraction; entropies [N, A] and their mask."""
    packing = pack(episodes.valid, index)
    pi, v = packing.take(episodes.pi), packing.take(episodes.v)
    mask = episodes.head_mask.index_select(0, packing.episode)
    inputs = [network.normaliser(pi), critic.inputs(pi, v)]
    states = [net.initial_state((packing.sizes[0],)) for net in (network, critic)]
    (features, _), (value_features, _) = packed_features([network.trunk, critic.trunk], inputs, states, packing.sizes)
    logits = network.heads(features)
    value = critic.head(value_features).squeeze(-1)
    log_p, per_head = log_prob_and_entropy(logits, packing.take(episodes.action), network.nvec, mask)
    log_ratio = log_p - packing.take(episodes.log_prob)
    ratio = log_ratio.exp()
    gain = packing.take(advantage)
    policy_loss = -torch.minimum(ratio * gain, ratio.clamp(1 - settings.clip, 1 + settings.clip) * gain).mean()
    value_loss = (value - packing.take(target)).square().mean()
    entropy = per_head.sum(-1).mean()
    with torch.no_grad():
        kl = (ratio - 1 - log_ratio).mean()
        clipped = ((ratio - 1).abs() > settings.clip).float().mean()
        seen = torch.stack([policy_loss, value_loss, entropy, kl, clipped])
    return policy_loss + settings.value_coef * value_loss - settings.entropy * entropy, seen, per_head.detach(), mask


def _explained_variance(value: Tensor, target: Tensor) -> float:
    """Return 1 - var(target - value) / var(target); 0 where the target does not vary."""
    target = target.double()
    total = float(target.var(correction=0))
    return 1.0 - float((target - value.double()).var(correction=0)) / total if total > 0 else 0.0
