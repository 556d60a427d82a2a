"""Which shards work in which outer step: those that the curriculum admits, in turn or by the rates of their families."""

from collections.abc import Mapping, Sequence

from metaopt.cluster import Pool
from metaopt.config import Config
from metaopt.outer.curriculum import Curriculum, template_cost
from metaopt.outer.mixing import Share, cost_record, recorded_costs, turn, visit_rates
from metaopt.tasks.source import TaskSource

__all__ = ["Turns", "measured_costs"]

_SHARES: dict[str, Share] = {"equal_shards": "shards", "equal_steps": "steps", "equal_time": "time"}
_LOOKED_AT = 64  # outer steps whose shards are spread over the workers


def measured_costs(config: Config, device: str) -> dict[str, int]:
    """Return the record of the mean cost of an estimate by family that `outer.mixing: equal_time` needs; empty where nothing does.

    Costs of the config are taken as they are; others are measured, which differs from run to run. A run measures once and keeps the record.
    """
    if config.outer.mixing != "equal_time":
        return {}
    if config.outer.costs is not None:
        return cost_record(config.outer.costs)
    from metaopt.outer.prediction import shard_costs  # the only thing that measures

    seconds: dict[str, list[float]] = {}
    for cost in shard_costs(config, device):
        seconds.setdefault(cost.family, []).append(cost.seconds)
    return cost_record({family: sum(values) / len(values) for family, values in seconds.items()})


class Turns:
    """A pure function of the config and of a record of costs.

    Args:
        config: with the curriculum, the mixing, and the number of shards a step.
        sources: of the shards.
        record: what `measured_costs` returned when the run began.
    """

    def __init__(self, config: Config, sources: Sequence[TaskSource], record: Mapping[str, int]) -> None:
        self._outer, self._sources = config.outer, sources
        self._curriculum = Curriculum(config.outer, sources)
        families, share = [source.family.name for source in sources], _SHARES[config.outer.mixing]
        cost = recorded_costs(record)
        costs = [cost.get(family, 1.0) for family in families]
        self._rates = None if share == "shards" else visit_rates(families, costs, share)

    def shards(self, step: int, left: Sequence[int]) -> list[int]:
        """Return the shards of outer step `step` among those `left`: all that are admitted, or `shards_per_step` of them."""
        return turn(self._curriculum.admitted(step, left), self._outer.shards_per_step, step, self._rates)

    def balance(self, pool: Pool) -> None:
        """Spread the shards over the workers by what they cost; no result depends on it."""
        if pool.workers > 1:
            costs = {i: template_cost(source.family, source.template) for i, source in enumerate(self._sources)}
            steps = range(0, self._outer.steps, max(1, self._outer.steps // _LOOKED_AT))
            pool.balance(costs, [self.shards(step, range(len(costs))) for step in steps])
