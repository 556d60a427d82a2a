"""Train stable-baselines3's own PPO to turn hyperparameters: any algorithm that takes a `VecEnv` can be put in its place.

python scripts/train_vanilla_sb3.py [--env metaopt_envs:metaopt/HyperparameterControl-v0] [--steps 4096] [--envs 4] [--workers 2]

PPO without memory sees one decision at a time, and the critic nothing more than the policy: a check of the environment, not the way to a
good policy (that is `metaopt train policy_small`).
"""

import argparse
import functools
import sys

import gymnasium
import torch
from gymnasium.wrappers import FilterObservation
from stable_baselines3 import PPO

from metaopt.cluster.ray_vec_env import RayVecEnv
from metaopt.errors import MetaoptError


def make(env_id: str) -> gymnasium.Env:
    """Return the environment without what only a critic may see: SB3 would show it to the policy."""
    env = gymnasium.make(env_id)
    return FilterObservation(env, ["pi"]) if isinstance(env.observation_space, gymnasium.spaces.Dict) else env


def main() -> int:
    """Print SB3's tables, then what failed; exit status 2 for bad input, 4 when environments fail too often."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="metaopt_envs:metaopt/HyperparameterControl-v0", help="id; `module:id` imports the module first")
    parser.add_argument("--steps", type=int, default=4096, help="decisions, rounded up to whole rollouts")
    parser.add_argument("--envs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    venv = None
    try:
        venv = RayVecEnv(functools.partial(make, args.env), args.envs, args.workers, args.seed)
        kind = "MultiInputPolicy" if isinstance(venv.observation_space, gymnasium.spaces.Dict) else "MlpPolicy"
        model = PPO(kind, venv, n_steps=128, batch_size=128, gamma=1.0, ent_coef=1e-2, device="cpu", seed=args.seed, verbose=1)
        model.learn(args.steps)
    except MetaoptError as error:
        print(error, file=sys.stderr)
        return 2 if venv is None else 4
    finally:
        if venv is not None:
            venv.close()
    print(venv.stats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
