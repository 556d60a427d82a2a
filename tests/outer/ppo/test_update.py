"""The PPO update against a float64 reference that goes decision by decision, and what must not change it."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from metaopt import seeds
from metaopt.learners.policies import PolicyNetwork, log_prob, sample
from metaopt.outer.ppo import Critic, Episodes, PPOSettings, advantages, make_optimizer, update
from tests.outer.ppo.sequences import HIDDEN, INPUTS, KEY, NVEC, networks, played, spoiled

LENGTHS = [6, 1, 9, 4, 9]
SETTINGS = PPOSettings(epochs=2, batches=2)


def state(*modules: torch.nn.Module) -> list[Tensor]:
    return [value.clone() for module in modules for value in module.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def updated(episodes: Episodes, settings: PPOSettings = SETTINGS, key: int = 0) -> tuple[list[Tensor], dict[str, float]]:
    network, critic = networks()
    statistics = update(network, critic, make_optimizer(network, critic, settings), episodes, settings, seeds.key("update", key))
    return state(network, critic), statistics


def reference_loss(network: PolicyNetwork, critic: Critic, episodes: Episodes, settings: PPOSettings) -> tuple[Tensor, dict[str, float]]:
    """The loss of all episodes as one minibatch, in float64: each decision of each episode on its own, heads by log-softmax."""
    lengths = episodes.valid.sum(0).tolist()
    advantage, target = (part.double() for part in advantages(episodes, settings.gamma, settings.gae_lambda))
    taken = [float(advantage[t, e]) for e, length in enumerate(lengths) for t in range(length)]
    mean = math.fsum(taken) / len(taken)
    deviation = math.sqrt(math.fsum((a - mean) ** 2 for a in taken) / len(taken))
    returns = [float(target[t, e]) for e, length in enumerate(lengths) for t in range(length)]
    centre = math.fsum(returns) / len(returns)
    width = math.sqrt(math.fsum((r - centre) ** 2 for r in returns) / len(returns) + 1e-5)
    total, parts = torch.zeros((), dtype=torch.float64), {"policy_loss": 0.0, "value_loss": 0.0, "entropy": 0.0, "kl": 0.0}
    for e, length in enumerate(lengths):
        memory, critic_memory = network.initial_state(), critic.initial_state()
        for t in range(length):
            pi, v = episodes.pi[t, e].double(), episodes.v[t, e].double()
            logits, memory = network.step(pi, memory)
            features, critic_memory = critic.trunk.step(critic.normaliser(torch.cat([pi, v])), critic_memory)
            log_p, entropy = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
            for head, own in enumerate(logits.split(list(network.nvec))):
                if episodes.head_mask[e, head]:
                    choices = own - own.exp().sum().log()
                    log_p = log_p + choices[int(episodes.action[t, e, head])]
                    entropy = entropy - (choices.exp() * choices).sum()
            log_ratio = log_p - episodes.log_prob[t, e].double()
            ratio = log_ratio.exp()
            gain = (float(advantage[t, e]) - mean) / (deviation + 1e-8)
            limited = min(max(float(ratio), 1 - settings.clip), 1 + settings.clip)
            surrogate = ratio * gain if float(ratio) * gain <= limited * gain else torch.tensor(limited * gain, dtype=torch.float64)
            error = (critic.head(features).squeeze() - (float(target[t, e]) - centre) / width) ** 2
            total = total - surrogate + settings.value_coef * error - settings.entropy * entropy
            for name, part in (("policy_loss", -surrogate), ("value_loss", error), ("entropy", entropy), ("kl", ratio - 1 - log_ratio)):
                parts[name] += float(part.detach()) / len(taken)
    return total / len(taken), parts


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_a_step_equals_a_float64_reference() -> None:
    settings = PPOSettings(epochs=1, batches=1, entropy=0.05, gamma=0.97, gae_lambda=0.9, max_grad_norm=0.05)
    network, critic = networks()
    episodes = played(LENGTHS, network, critic, padding=2)
    network64, critic64 = copy.deepcopy(network).double(), copy.deepcopy(critic).double()
    loss, wanted = reference_loss(network64, critic64, episodes, settings)
    parameters64 = [*network64.parameters(), *critic64.parameters()]
    gradient = torch.autograd.grad(loss, parameters64)
    norm = math.sqrt(math.fsum(float(g.square().sum()) for g in gradient))
    parameters = [*network.parameters(), *critic.parameters()]
    before = [p.detach().double().clone() for p in parameters]
    statistics = update(network, critic, torch.optim.SGD(parameters, lr=1.0), episodes, settings, KEY)
    for name, number in wanted.items():
        assert statistics[name] == pytest.approx(number, rel=1e-4, abs=1e-5), name
    assert statistics["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert norm > settings.max_grad_norm
    for old, new, g in zip(before, parameters, gradient, strict=True):
        torch.testing.assert_close(old - new.detach().double(), g * (settings.max_grad_norm / norm), rtol=1e-3, atol=2e-6)


def test_more_padding_and_what_is_in_it_change_no_bit() -> None:
    episodes = played(LENGTHS, *networks())
    wanted, statistics = updated(episodes)
    for padding in (0, 1, 8):
        got, again = updated(spoiled(episodes, padding))
        assert same(got, wanted)
        assert again == statistics
    assert all(math.isfinite(number) for number in statistics.values())


def test_an_episode_without_decisions_changes_no_bit() -> None:
    episodes = played(LENGTHS, *networks())
    one = episodes.select(torch.tensor([0]))
    empty = replace(one, valid=torch.zeros_like(one.valid))
    assert same(updated(Episodes.join([episodes, empty]))[0], updated(episodes)[0])


def test_actions_of_masked_heads_change_no_bit() -> None:
    episodes = played(LENGTHS, *networks())
    other = torch.where(episodes.head_mask, episodes.action, torch.tensor(NVEC) - 1 - episodes.action)
    assert not torch.equal(other, episodes.action)
    assert same(updated(replace(episodes, action=other))[0], updated(episodes)[0])


def test_a_head_that_is_always_masked_is_not_trained() -> None:
    network, critic = networks()
    episodes = played(LENGTHS, network, critic, masks=False)
    mask = episodes.head_mask.clone()
    mask[:, 1] = False
    before = network.heads.weight[4:6].detach().clone()
    settings = PPOSettings(epochs=1)
    statistics = update(network, critic, make_optimizer(network, critic, settings), replace(episodes, head_mask=mask), settings, KEY)
    assert torch.equal(network.heads.weight[4:6], before)
    assert statistics["entropy_1"] == 0.0
    assert 0.0 < statistics["entropy_0"] <= math.log(4)
    assert statistics["entropy"] == pytest.approx(statistics["entropy_0"] + statistics["entropy_2"], rel=1e-2)


def test_the_update_is_a_function_of_weights_episodes_and_key() -> None:
    episodes = played(LENGTHS, *networks())
    first, second, other = updated(episodes), updated(episodes), updated(episodes, key=1)
    assert same(first[0], second[0])
    assert first[1] == second[1]
    assert not same(first[0], other[0])


def test_it_uses_no_global_generator() -> None:
    episodes, before = played(LENGTHS, *networks()), torch.random.get_rng_state()
    updated(episodes)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_policy_that_acted_has_ratio_1() -> None:
    network, critic = networks()
    episodes = played(LENGTHS, network, critic, masks=False)
    with torch.no_grad():
        log_p = log_prob(network(episodes.pi.nan_to_num())[0], episodes.action, NVEC)
    statistics = updated(replace(episodes, log_prob=log_p), PPOSettings(epochs=1, batches=1))[1]
    assert statistics["kl"] == pytest.approx(0.0, abs=1e-7)
    assert statistics["clip_fraction"] == 0.0


@pytest.mark.parametrize(("kl_stop", "epochs", "steps"), [(None, 2, 4), (1e6, 2, 4), (0.0, 1, 0)])
def test_kl_stop_ends_the_update_before_the_step(kl_stop: float | None, epochs: int, steps: int) -> None:
    network, critic = networks()
    episodes = played(LENGTHS, network, critic)
    settings = SETTINGS.model_copy(update={"kl_stop": kl_stop})
    before = [p.detach().clone() for p in (*network.parameters(), *critic.parameters())]
    statistics = update(network, critic, make_optimizer(network, critic, settings), episodes, settings, KEY)
    assert (statistics["epochs"], statistics["steps"]) == (epochs, steps)
    moved = any(not torch.equal(a, b) for a, b in zip(before, (*network.parameters(), *critic.parameters()), strict=True))
    assert moved == (steps > 0)
    assert int(network.normaliser.updates) == int(critic.normaliser.updates) == int(critic.targets.updates) == 1


def test_statistics_of_inputs_take_in_the_batch_last() -> None:
    network, critic = networks()
    episodes = played(LENGTHS, network, critic)
    update(network, critic, make_optimizer(network, critic, SETTINGS), episodes, SETTINGS, KEY)
    torch.testing.assert_close(network.normaliser.mean, episodes.pi[episodes.valid].mean(0))
    torch.testing.assert_close(critic.normaliser.mean[INPUTS:], episodes.v[episodes.valid].mean(0))


def test_a_gradient_that_is_not_finite_is_skipped_and_counted() -> None:
    network, critic = networks()
    episodes = played(LENGTHS, network, critic)
    before = [p.detach().clone() for p in network.parameters()]
    bad = replace(episodes, log_prob=torch.full_like(episodes.log_prob, -math.inf))
    statistics = update(network, critic, make_optimizer(network, critic, SETTINGS), bad, SETTINGS, KEY)
    assert (statistics["steps"], statistics["skipped"]) == (0.0, 4.0)
    assert same(before, list(network.parameters()))


def test_it_learns_what_pays_and_the_critic_what_only_it_can_see() -> None:
    network, critic = networks()
    with torch.no_grad():
        network.heads.weight /= 50.0
    settings = PPOSettings(lr=5e-3, gae_lambda=0.5, epochs=4, batches=2)
    optimizer = make_optimizer(network, critic, settings)
    statistics: dict[str, float] = {}
    for k in range(25):
        key = seeds.key("learn", k)
        pi, v = seeds.normal(seeds.fold_in(key, 0), (4, 32, INPUTS)), seeds.normal(seeds.fold_in(key, 1), (4, 32, 2))
        with torch.no_grad():
            logits, _ = network(pi)
            action = sample(logits, seeds.uniform(seeds.fold_in(key, 2), (4, 32, 3)), NVEC)
            log_p = log_prob(logits, action, NVEC)
            value = critic(pi, v)
        reward = (action[..., 0] == (pi[..., 0] > 0)).float() + 2.0 * v[..., 1]  # only head 0 counts; v cannot be seen by the policy
        mask, valid = torch.ones(32, 3, dtype=torch.bool), torch.ones(4, 32, dtype=torch.bool)
        episodes = Episodes(pi, v, action, mask, log_p, value, reward, valid, torch.zeros(32))
        statistics = update(network, critic, optimizer, episodes, settings, key)
    right = (action[..., 0] == (pi[..., 0] > 0)).float().mean()
    assert float(right) > 0.75  # 0.25 by chance
    assert statistics["explained_variance"] > 0.3
    assert network.trunk.hidden == HIDDEN
