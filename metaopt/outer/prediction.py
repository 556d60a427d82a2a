"""What a run will take, before it starts: seconds and bytes, from measured steps of its buckets.

For orders of magnitude: it knows neither how busy the machine will be, nor compile times, nor checkpoints and validation.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from metaopt.cluster.placement import makespan, place
from metaopt.config import Config
from metaopt.estimators import Recipe
from metaopt.inner.cost import StepCost, step_cost
from metaopt.inner.live_bytes import storage_bytes
from metaopt.learners import Learner
from metaopt.outer.curriculum import Curriculum, template_cost
from metaopt.outer.mixing import turn
from metaopt.outer.shards import make_learner, shard_sources
from metaopt.tasks.source import TaskSource

__all__ = ["FamilyCost", "Prediction", "ShardCost", "predict", "shard_costs"]

_PROBE_STEPS = 5  # inner steps of an estimate that is timed
_SAMPLED_STEPS = 64  # outer steps whose shards are looked at


@dataclass(frozen=True)
class ShardCost:
    """One estimate of one shard.

    Attributes:
        family, template: what the shard is bound to.
        seconds: time of an estimate.
        kept_bytes: what the shard keeps between estimates.
        working_bytes: what it needs on top while it works.
        measured: whether its own bucket was measured; otherwise the most similar measured one stands for it.
    """

    family: str
    template: str
    seconds: float
    kept_bytes: int
    working_bytes: int
    measured: bool


@dataclass(frozen=True)
class FamilyCost:
    """The shards of one family: their number, the mean seconds of an estimate, their part of all computing time, and bytes kept."""

    family: str
    shards: int
    seconds: float
    share: float
    bytes: int


@dataclass(frozen=True)
class Prediction:
    """What a run will take.

    Attributes:
        seconds_per_outer_step: until the last worker is done, mean over the run.
        total_seconds: of all outer steps.
        bytes: of tensors, on all workers together.
        families: one row a family, in the config's order.
        buckets: distinct programs.
        measured: how many of them were measured.
        workers: that many.
    """

    seconds_per_outer_step: float
    total_seconds: float
    bytes: int
    families: tuple[FamilyCost, ...]
    buckets: int
    measured: int
    workers: int

    def sentence(self) -> str:
        """Return one line for people."""
        steps = round(self.total_seconds / self.seconds_per_outer_step) if self.seconds_per_outer_step else 0
        part = "" if self.measured == self.buckets else f" (measured on {self.measured} of {self.buckets} kinds of task)"
        each, workers = _duration(self.seconds_per_outer_step), f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        return f"about {_duration(self.total_seconds)} and {_size(self.bytes)}: {steps} outer steps of {each} on {workers}{part}"


def predict(
    config: Config, workers: int = 0, device: str = "cpu", budget_s: float = 10.0, rates: Sequence[float] | None = None
) -> Prediction:
    """Return what a run of this config takes on this machine.

    Args:
        config: what would run.
        workers: as for `train`; 0 is one, in this process.
        device: where inner runs live.
        budget_s: about how long to measure; at least one bucket a family is measured whatever it says.
        rates: how often each shard is visited, as for `mixing.turn`; None for taking turns.
    """
    costs = shard_costs(config, device, budget_s)
    sources = shard_sources(config)
    workers = max(1, workers)
    curriculum, steps = Curriculum(config.outer, sources), config.outer.steps
    sampled = sorted({round(i * (steps - 1) / (_SAMPLED_STEPS - 1)) for i in range(_SAMPLED_STEPS)})
    turns = [turn(curriculum.admitted(step, range(len(costs))), config.outer.shards_per_step, step, rates) for step in sampled]
    seconds = {shard: cost.seconds for shard, cost in enumerate(costs)}
    placement = place(seconds, workers, turns)
    per_step = sum(makespan(shards, seconds, placement) for shards in turns) / len(turns)
    busy = dict.fromkeys([cost.family for cost in costs], 0.0)
    for shards in turns:
        for shard in shards:
            busy[costs[shard].family] += costs[shard].seconds
    families = []
    for name in busy:
        own = [cost for cost in costs if cost.family == name]
        mean = sum(cost.seconds for cost in own) / len(own)
        families.append(FamilyCost(name, len(own), mean, busy[name] / sum(busy.values()), sum(cost.kept_bytes for cost in own)))
    data = storage_bytes([source.task(0, 0).shared for source in sources])
    total_bytes = sum(cost.kept_bytes for cost in costs) + workers * (data + max(cost.working_bytes for cost in costs))
    programs = {(cost.family, cost.template, source.chosen): cost.measured for cost, source in zip(costs, sources, strict=True)}
    return Prediction(per_step, per_step * steps, total_bytes, tuple(families), len(programs), sum(programs.values()), workers)


def shard_costs(config: Config, device: str = "cpu", budget_s: float = 10.0) -> tuple[ShardCost, ...]:
    """Return the cost of every shard, measured as far as the budget goes: eager steps, whatever `config.compile` says.

    A bucket that there was no time for gets the numbers of the measured one of its family whose steps have the most similar count of
    multiplications.
    """
    learner, sources, pairs = make_learner(config), shard_sources(config), config.outer.shard_particles
    threads, recipe = config.outer.threads_per_worker, config.outer.estimator.recipe
    begin = time.monotonic()
    found: dict[int, StepCost] = {}
    bucket = [(source.family.name, source.template, source.chosen) for source in sources]
    for shard in _family_by_family(sources):
        seen = any(bucket[other][0] == bucket[shard][0] for other in found)
        known = next((found[other] for other in found if bucket[other] == bucket[shard]), None)
        if known is not None:
            found[shard] = known
        elif not seen or time.monotonic() - begin < budget_s:
            found[shard] = step_cost(learner, sources[shard].task(0, 0), pairs, threads, device)
    cheapest = min(found, key=lambda shard: (found[shard].seconds, shard))
    whole, overhead = _probe(recipe, learner, sources[cheapest], pairs, found[cheapest].seconds, device)
    multiplications = (
        {(s.family.name, s.template): template_cost(s.family, s.template) for s in sources} if len(found) < len(sources) else {}
    )
    costs = []
    for shard, source in enumerate(sources):
        name = (source.family.name, source.template)
        like = shard
        if shard not in found:
            same = [other for other in found if bucket[other][0] == bucket[shard][0]]
            like = min(same, key=lambda other: abs(math.log(multiplications[bucket[other][:2]] / multiplications[name])))
        cost = found[like]
        steps = _longest(source.horizon, pairs) if whole else float(recipe.window)
        seconds = overhead * steps * cost.seconds
        costs.append(ShardCost(*name, seconds, cost.kept_bytes, cost.batch_bytes + cost.working_bytes, shard in found))
    return tuple(costs)


def _family_by_family(sources: Sequence[TaskSource]) -> list[int]:
    """Return the shards in the order in which to measure them: the first of each family, the second of each, ..."""
    rank: dict[str, int] = {}
    keys = []
    for shard, source in enumerate(sources):
        rank[source.family.name] = rank.get(source.family.name, 0) + 1
        keys.append((rank[source.family.name], shard))
    return [shard for _, shard in sorted(keys)]


def _probe(recipe: Recipe, learner: Learner, source: TaskSource, pairs: int, step_seconds: float, device: str) -> tuple[bool, float]:
    """Return whether an estimate unrolls whole runs, and its time over that of the plain steps that it makes (noise, derivatives, ...)."""
    window = min(_PROBE_STEPS, recipe.window)
    short = replace(recipe, window=window)  # type: ignore[type-var]
    theta = {name: value.to(device) for name, value in learner.init_theta(0).items()}
    steps, ratios = [], []
    for factor in (1, 4):
        runs = replace(source, horizon=(factor * window,) * 2, stages=())
        estimator = short.build(learner, runs, pairs, 0, device, False)
        result = estimator.estimate(theta, 0)
        begin = time.perf_counter()
        result = estimator.estimate(theta, 1)
        seconds = time.perf_counter() - begin
        steps.append(result.sequential_steps or window)
        ratios.append(seconds / (steps[-1] * step_seconds))
    return steps[1] > steps[0], max(1.0, ratios[1])


def _longest(horizon: tuple[int, int], pairs: int) -> float:
    """Return about the longest of `pairs` log-uniform horizons."""
    low, high = horizon
    return float(low * (high / low) ** (pairs / (pairs + 1)))


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(1, round(count / 2**20))} MiB"
