"""Short-horizon bias on a small network: schedules tuned offline at a look-ahead, and a rate adapted online by a short one.

The exact laboratory, without a network, is `metaopt.tasks.oracles.horizon_bias`.
"""

from metaopt.estimators.short_horizon.network import Interval, interval, network_task
from metaopt.estimators.short_horizon.offline import Offline, OfflineRow, decay_rates, offline
from metaopt.estimators.short_horizon.online import Online, OnlineRun, online

__all__ = ["Interval", "Offline", "OfflineRow", "Online", "OnlineRun", "decay_rates", "interval", "network_task", "offline", "online"]
