"""Proximal policy optimization of hyperparameter policies: whole episodes, recurrent, asymmetric.

`algorithm` (not imported here) puts the same update behind stable-baselines3's interface.
"""

from metaopt.config.policy import PPOSettings
from metaopt.outer.ppo.advantages import advantages
from metaopt.outer.ppo.critic import Critic
from metaopt.outer.ppo.episodes import Episodes
from metaopt.outer.ppo.update import make_optimizer, update

__all__ = ["Critic", "Episodes", "PPOSettings", "advantages", "make_optimizer", "update"]
