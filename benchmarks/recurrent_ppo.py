"""What a recurrent PPO update costs: 768 decisions, 4 epochs, minibatches of 128, one thread; beside sb3-contrib's where that is installed.

    OMP_NUM_THREADS=1 python benchmarks/recurrent_ppo.py [--lengths mixed|N] [--minibatches 6] [--hidden 256] [--repeats 7] [--json]

Process CPU seconds of the update alone, without collecting: both get 161 inputs and nine heads, and have for policy and critic each a layer
of 256, an LSTM of 256 (ours with layer norms) and a layer of 256. They take turns; the ratio is that of the medians. Wanted: at most 1/5.

Episodes are played by six environments with 128 decisions each. `mixed`: their lengths are log-uniform in 2 .. 128, as those of training
are; N: all have N decisions. Short episodes of equal length are the worst case of the ratio: sb3-contrib has few steps in a row to make.

sb3-contrib is not a dependency; to have it measured: pip install --no-deps --target DIR sb3-contrib, then PYTHONPATH=DIR in front.
"""

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.callbacks import ConvertCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from metaopt import seeds
from metaopt.learners.policies import NetworkShape, PolicyNetwork, log_prob, sample
from metaopt.memory import keep_freed_memory
from metaopt.outer.ppo import Critic, Episodes, PPOSettings, make_optimizer, update

INPUTS, NVEC = 161, (10, 7, 3, 3, 3, 3, 5, 3, 3)
ENVIRONMENTS, STEPS, EPOCHS, WANTED = 6, 128, 4, 0.2
DECISIONS = ENVIRONMENTS * STEPS


def episode_lengths(kind: str) -> list[list[int]]:
    """Return the lengths of the episodes that each environment plays one after the other; the last one is cut."""
    draw = np.random.default_rng(0)
    players = []
    for _ in range(ENVIRONMENTS):
        lengths: list[int] = []
        while sum(lengths) < STEPS:
            length = round(math.exp(draw.uniform(math.log(2), math.log(128)))) if kind == "mixed" else int(kind)
            lengths.append(min(length, STEPS - sum(lengths)))
        players.append(lengths)
    return players


def ours(players: list[list[int]], minibatches: int, hidden: int) -> Callable[[], None]:
    """Return our update as a function to be called again and again."""
    lengths = torch.tensor([length for player in players for length in player])
    steps, episodes, key = int(lengths.max()), len(lengths), seeds.key("recurrent ppo benchmark")
    network = PolicyNetwork(NetworkShape(INPUTS, hidden, NVEC), seeds.fold_in(key, 0))
    critic = Critic(INPUTS, hidden, seeds.fold_in(key, 1))
    pi, v = seeds.normal(seeds.fold_in(key, 2), (steps, episodes, INPUTS)), torch.zeros(steps, episodes, 0)
    with torch.no_grad():
        logits, _ = network(pi)
        action = sample(logits, seeds.uniform(seeds.fold_in(key, 3), (steps, episodes, len(NVEC))), NVEC)
        batch = Episodes(
            pi=pi,
            v=v,
            action=action,
            head_mask=torch.ones(episodes, len(NVEC), dtype=torch.bool),
            log_prob=log_prob(logits, action, NVEC),
            value=critic(pi, v),
            reward=seeds.normal(seeds.fold_in(key, 4), (steps, episodes)),
            valid=torch.arange(steps)[:, None] < lengths,
            bootstrap=torch.zeros(episodes),
        )
    settings = PPOSettings(epochs=EPOCHS, batches=minibatches)
    optimizer = make_optimizer(network, critic, settings)

    def run() -> None:
        done = update(network, critic, optimizer, batch, settings, key)
        assert done["steps"] == EPOCHS * min(minibatches, episodes)

    return run


class Noise(gymnasium.Env):
    """Episodes of given lengths in which nothing depends on anything."""

    def __init__(self, lengths: list[int]) -> None:
        self.observation_space = gymnasium.spaces.Box(-20, 20, (INPUTS,), np.float32)
        self.action_space = gymnasium.spaces.MultiDiscrete(NVEC)
        self.lengths, self.left, self.draw = itertools.cycle(lengths), 0, np.random.default_rng(0)

    def reset(self, *, seed=None, options=None):
        self.left = next(self.lengths)
        return self.draw.standard_normal(INPUTS).astype(np.float32), {}

    def step(self, action):
        self.left -= 1
        return self.draw.standard_normal(INPUTS).astype(np.float32), float(self.draw.standard_normal()), self.left == 0, False, {}


def theirs(players: list[list[int]], minibatches: int, hidden: int) -> Callable[[], None] | None:
    """Return sb3-contrib's `train` on a rollout of the same size, or None without sb3-contrib."""
    try:
        from sb3_contrib import RecurrentPPO
    except ImportError:
        return None
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    class Layer(BaseFeaturesExtractor):
        def __init__(self, space: gymnasium.spaces.Box) -> None:
            super().__init__(space, hidden)
            self.layer = torch.nn.Linear(INPUTS, hidden)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).relu()

    env = DummyVecEnv([lambda lengths=lengths: Noise(lengths) for lengths in players])
    shape = {
        "features_extractor_class": Layer,
        "share_features_extractor": False,
        "lstm_hidden_size": hidden,
        "net_arch": [hidden],
    }
    model = RecurrentPPO(
        "MlpLstmPolicy",
        env,
        n_steps=STEPS,
        batch_size=DECISIONS // minibatches,
        n_epochs=EPOCHS,
        ent_coef=0.01,
        max_grad_norm=5.0,
        learning_rate=2e-4,
        gamma=1.0,
        policy_kwargs=shape,
        device="cpu",
        seed=0,
    )
    _, callback = model._setup_learn(DECISIONS, ConvertCallback(None))
    model.collect_rollouts(env, callback, model.rollout_buffer, STEPS)
    return model.train


def seconds(run: Callable[[], None]) -> float:
    """Return the process CPU seconds of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default="mixed", help="of episodes: mixed, or one number")
    parser.add_argument("--minibatches", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    sizes = (episode_lengths(arguments.lengths), arguments.minibatches, arguments.hidden)
    runs = {"ours": ours(*sizes), "sb3-contrib": theirs(*sizes)}
    present = {name: run for name, run in runs.items() if run is not None}
    times: dict[str, list[float]] = {name: [] for name in present}
    for _ in range(arguments.repeats + 1):
        for name, run in present.items():
            times[name].append(seconds(run))
    result = {f"{name} (CPU s)": round(statistics.median(seen[1:]), 3) for name, seen in times.items()}  # the first one warms up
    if len(result) == 2:
        mine, other = result.values()
        result |= {"ratio": round(mine / other, 3), "wanted": WANTED}
    print(json.dumps(result) if arguments.json else "\n".join(f"{name:20} {value}" for name, value in result.items()))
    if len(present) == 1 and not arguments.json:
        print("sb3-contrib: not installed; pip install --no-deps --target DIR sb3-contrib, then PYTHONPATH=DIR in front")


if __name__ == "__main__":
    main()
