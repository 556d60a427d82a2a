"""Gymnasium environments of metaopt. Importing this package registers their ids.

`metaopt/HyperparameterControl-v0` is one episode; `GroupEnv` plays many at once.
"""

import gymnasium

from metaopt_envs.critic_inputs import CRITIC_INPUTS
from metaopt_envs.group_env import GroupEnv
from metaopt_envs.hyperparameter_control import HyperparameterControl
from metaopt_envs.settings import Bucket, Settings
from metaopt_envs.task_pool import PoolFamily, TaskPool

__all__ = ["CRITIC_INPUTS", "Bucket", "GroupEnv", "HyperparameterControl", "PoolFamily", "Settings", "TaskPool"]

if "metaopt/HyperparameterControl-v0" not in gymnasium.registry:
    gymnasium.register("metaopt/HyperparameterControl-v0", entry_point="metaopt_envs.hyperparameter_control:HyperparameterControl")
