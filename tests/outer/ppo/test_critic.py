"""The critic: one decision and whole episodes agree, returns come in units of reward."""

import torch

from metaopt.outer.ppo import Critic
from tests.outer.ppo.sequences import EXTRA, HIDDEN, INPUTS, KEY, networks, played


def test_whole_episodes_equal_their_decisions_one_by_one() -> None:
    network, critic = networks()
    episodes = played([6, 6, 6], network, critic)
    critic.normaliser.update(torch.cat([episodes.pi, episodes.v], -1))
    critic.targets.update(10.0 + 5.0 * episodes.reward.unsqueeze(-1))
    with torch.no_grad():
        whole, state, rows = critic(episodes.pi, episodes.v), critic.initial_state((3,)), []
        for pi, v in zip(episodes.pi, episodes.v, strict=True):
            value, state = critic.step(pi, v, state)
            rows.append(value)
    torch.testing.assert_close(torch.stack(rows), whole, rtol=1e-5, atol=1e-4)


def test_a_fresh_critic_expects_the_mean_return() -> None:
    critic = Critic(INPUTS + EXTRA, HIDDEN, KEY)
    critic.targets.update(torch.tensor([[1.0], [6.0]]))
    with torch.no_grad():
        value = critic(torch.ones(4, 2, INPUTS), torch.ones(4, 2, EXTRA))
    torch.testing.assert_close(value, torch.full((4, 2), 3.5))


def test_it_sees_what_the_policy_does_not() -> None:
    _, critic = networks()
    pi, v = torch.ones(3, 1, INPUTS), torch.zeros(3, 1, EXTRA)
    with torch.no_grad():
        assert not torch.allclose(critic(pi, v), critic(pi, v + 1.0))
