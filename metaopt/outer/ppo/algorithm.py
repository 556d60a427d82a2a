"""The same PPO behind stable-baselines3's interface, for any of its vectorised environments.

    model = RecurrentPPO(env, n_steps=512)
    model.learn(100_000)
    evaluate_policy(model, env)

A rollout consists of whole episodes. Environments begin anew with each rollout, so that every sequence starts where its episode does, with
a state of zeros, and the update replays what happened. An episode that the end of a rollout cuts is bootstrapped, as is one that ran into a
time limit; n_steps should therefore be no less than the usual length of an episode.

Legend: S steps of a rollout, n environments, T decisions of the longest episode, E episodes.
"""

from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from metaopt import seeds
from metaopt.config.policy import PPOSettings
from metaopt.errors import ConfigError
from metaopt.learners.policies.heads import log_prob
from metaopt.learners.policies.lstm import LSTMState
from metaopt.outer.ppo.episodes import Episodes
from metaopt.outer.ppo.policy import RecurrentPolicy
from metaopt.outer.ppo.update import update

__all__ = ["RecurrentPPO"]


class RecurrentPPO(OnPolicyAlgorithm):
    """PPO with a recurrent policy and a recurrent, possibly better informed critic.

    Args:
        env: an environment or a `VecEnv`; observations Box, or Dict of "pi" and "v" (critic only); actions Discrete or MultiDiscrete.
        settings: of the update.
        learning_rate: a number or stable-baselines3's schedule; None: `settings.lr`.
        n_steps: S.
        hidden: width of the networks.
        seed: everything but the environment is a function of it and of what the environment returns; no global generator is used.
        stats_window_size, tensorboard_log, verbose: as in stable-baselines3.
    """

    policy: RecurrentPolicy  # type: ignore[assignment]

    def __init__(
        self,
        env: GymEnv | str,
        settings: PPOSettings | None = None,
        learning_rate: float | Schedule | None = None,
        n_steps: int = 512,
        hidden: int = 256,
        seed: int = 0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
    ) -> None:
        self.settings = settings or PPOSettings()
        self.hidden = hidden
        self.episodes: Episodes | None = None  # of the last rollout
        super().__init__(
            policy=RecurrentPolicy,  # type: ignore[arg-type]
            env=env,
            learning_rate=self.settings.lr if learning_rate is None else learning_rate,
            n_steps=n_steps,
            gamma=self.settings.gamma,
            gae_lambda=self.settings.gae_lambda,
            ent_coef=self.settings.entropy,
            vf_coef=self.settings.value_coef,
            max_grad_norm=self.settings.max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=seed,
            device="cpu",
            supported_action_spaces=(spaces.Discrete, spaces.MultiDiscrete),
        )

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        assert self.seed is not None
        if self.env is not None:
            self.env.seed(self.seed)
        self.policy = RecurrentPolicy(self.observation_space, self.action_space, self.lr_schedule, self.hidden, self.settings, self.seed)
        self.rollout_buffer = None  # type: ignore[assignment]  # `episodes` takes its place

    @torch.no_grad()
    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, rollout_buffer: Any, n_rollout_steps: int) -> bool:
        """Play S steps in every environment and keep the episodes; return False where the callback ends it all.

        `rollout_buffer` is not used.
        """
        network, critic = self.policy.network, self.policy.critic
        if self._last_obs is None:
            self._last_obs = env.reset()  # type: ignore[assignment]
        count = env.num_envs
        state, critic_state = network.initial_state((count,)), critic.initial_state((count,))
        rows: list[dict[str, Tensor]] = []
        ends: list[tuple[int, int, float]] = []  # step after the last one, environment, bootstrap
        dones = np.zeros(count, dtype=bool)
        callback.on_rollout_start()
        for step in range(1, n_rollout_steps + 1):
            pi, v = self.policy.split(obs_as_tensor(self._last_obs, self.device))  # type: ignore[arg-type]
            logits, state = network.step(pi, state)
            value, critic_state = critic.step(pi, v, critic_state)
            action = self.policy.choose(logits)
            new_obs, rewards, dones, infos = env.step(self.policy.for_environment(action))
            self.num_timesteps += count
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            self._update_info_buffer(infos, dones)
            row = {"pi": pi, "v": v, "action": action, "log_prob": log_prob(logits, action, self.policy.nvec), "value": value}
            rows.append(row | {"reward": torch.as_tensor(rewards, dtype=torch.float32)})
            for k in np.flatnonzero(dones).tolist():
                cut = infos[k].get("TimeLimit.truncated", False) and infos[k].get("terminal_observation") is not None
                ends.append((step, k, self._terminal_value(infos[k]["terminal_observation"], critic_state, k) if cut else 0.0))
            if dones.any():
                going_on = torch.as_tensor(~dones).unsqueeze(-1)
                state, critic_state = (tuple(torch.where(going_on, part, 0.0) for part in pair) for pair in (state, critic_state))  # type: ignore[assignment]
            self._last_obs = new_obs  # type: ignore[assignment]
        if not dones.all():
            value, _ = critic.step(*self.policy.split(obs_as_tensor(self._last_obs, self.device)), critic_state)  # type: ignore[arg-type]
            ends += [(n_rollout_steps, k, float(value[k])) for k in np.flatnonzero(~dones).tolist()]
            self._last_obs = None  # begin anew
        self.episodes = _whole_episodes(rows, ends, len(self.policy.nvec))
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _terminal_value(self, observation: Any, critic_state: LSTMState, environment: int) -> float:
        tensors, _ = self.policy.obs_to_tensor(observation)
        h, c = critic_state
        value, _ = self.policy.critic.step(
            *self.policy.split(tensors), (h[environment : environment + 1], c[environment : environment + 1])
        )
        return float(value)

    def train(self) -> None:
        """Update policy and critic from the last rollout, and log the statistics under `train/`."""
        assert self.episodes is not None
        self._update_learning_rate(self.policy.optimizer)
        key = seeds.key("recurrent ppo", self.seed, self._n_updates)
        found = update(self.policy.network, self.policy.critic, self.policy.optimizer, self.episodes, self.settings, key)
        for name, number in found.items():
            self.logger.record(f"train/{name}", number)
        self._n_updates += 1

    def save(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: the base class's archives hold pickles."""
        raise ConfigError("RecurrentPPO writes no zip archives (loading one unpickles); save policy.state_dict() as safetensors")

    @classmethod
    def load(cls, *_: Any, **__: Any) -> NoReturn:
        """Refuse: reading the base class's archives would run what is pickled in them."""
        raise ConfigError("RecurrentPPO reads no zip archives (loading one unpickles); make one and use policy.load_state_dict()")

    def set_parameters(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: it would read archives too."""
        raise ConfigError("RecurrentPPO reads no zip archives (loading one unpickles); use policy.load_state_dict()")


def _whole_episodes(rows: list[dict[str, Tensor]], ends: list[tuple[int, int, float]], heads: int) -> Episodes:
    """Return the episodes that end at `ends`, in the order of environment and time, from S rows of n."""
    ends = sorted(ends, key=lambda end: (end[1], end[0]))
    stop = torch.tensor([end[0] for end in ends])
    environment = torch.tensor([end[1] for end in ends])
    follows = torch.cat([torch.tensor([False]), environment[1:] == environment[:-1]])
    start = torch.where(follows, stop.roll(1), 0)
    step = start + torch.arange(int((stop - start).max())).unsqueeze(-1)
    valid = step < stop
    step = torch.where(valid, step, 0)
    columns = {name: torch.stack([row[name] for row in rows])[step, environment] for name in rows[0]}
    return Episodes(
        **columns,  # type: ignore[arg-type]
        head_mask=torch.ones((len(ends), heads), dtype=torch.bool),
        valid=valid,
        bootstrap=torch.tensor([end[2] for end in ends]),
    )
