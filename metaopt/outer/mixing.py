"""How often each shard is visited: all equally often, or so that families get equal shares of the inner steps, or of the time.

Everything here is a pure function of what it is given. Shares of time need measured costs, which differ from run to run: a run records them
once (`cost_record`), rounded, and every later step, resumed or not, uses the record.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

__all__ = ["Share", "cost_record", "recorded_costs", "turn", "visit_rates", "visits"]

Share = Literal["shards", "steps", "time"]
_CERTAIN = 1.0 - 1e-9
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0  # its multiples modulo 1 are spread evenly, however many there are


def cost_record(seconds: Mapping[str, float]) -> dict[str, int]:
    """Return costs by name (a shard's number, say) as JSON: exponents of 2**0.5, relative to the cheapest (0).

    Rounded so far that two measurements on a quiet machine mostly agree, and relative, so that a faster machine has the same record.

    Raises:
        ValueError: a cost is not positive and finite.
    """
    for name, value in seconds.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"cost of {name} must be > 0 and finite, got {value}")
    exponents = {name: round(2.0 * math.log2(value)) for name, value in seconds.items()}
    least = min(exponents.values(), default=0)
    return {name: exponent - least for name, exponent in sorted(exponents.items())}


def recorded_costs(record: Mapping[str, int]) -> dict[str, float]:
    """Return the costs of a record, in units of the cheapest one."""
    return {name: 2.0 ** (exponent / 2) for name, exponent in record.items()}


def visit_rates(families: Sequence[str], costs: Sequence[float], share: Share) -> tuple[float, ...]:
    """Return how often each shard should be visited, in proportion.

    Args:
        families: family of every shard. The shards of a family are visited equally often.
        costs: of one estimate of every shard, recorded ones; only "time" uses them.
        share: "shards": every shard equally often. "steps": every family gets as many visits in sum. "time": ... as much time in sum.
    """
    if share == "shards":
        return (1.0,) * len(families)
    cost = dict.fromkeys(families, 0.0)
    for name, own in zip(families, costs, strict=True):
        cost[name] += own if share == "time" else 1.0
    return tuple(1.0 / cost[name] for name in families)


def visits(rates: Sequence[float], per_step: int, step: int) -> list[int]:
    """Return which of the shards are visited at an outer step: `per_step` different ones, ascending, each as often as its rate says.

    Systematic sampling: the probabilities that the rates give (a shard can be visited once a step at most; what is above that goes to the
    others) are laid end to end, and a comb of spacing 1 picks one shard a tooth. The comb moves by the golden section from step to step,
    so that visits are spread evenly in time: after k steps a shard's visits differ from its share by a term of order log k. No state is
    kept.

    Args:
        rates: > 0, in proportion, of the shards that may be visited.
        per_step: visits a step, at most all of them.
        step: outer step, from 0.
    """
    always, others = _inclusion(rates, min(per_step, len(rates)))
    offset = (step * _GOLDEN) % 1.0
    chosen, end = list(always), 0.0
    for i, (place, p) in enumerate(others):
        begin, end = end, end + p
        if i == len(others) - 1:
            end = float(round(end))  # the sum of all is whole: rounding must not lose the last tooth
        if math.floor(end - offset) > math.floor(begin - offset):
            chosen.append(place)
    return sorted(chosen)


def turn(left: Sequence[int], per_step: int | None, step: int, rates: Sequence[float] | None = None) -> list[int]:
    """Return the shards of an outer step among those that are `left`: in turn, or by their rates.

    Args:
        left: shards that may work, ascending.
        per_step: how many a step, None for all of them.
        step: outer step, from 0.
        rates: of all shards (not only those left), from `visit_rates`; None for taking turns.
    """
    count = min(per_step or len(left), len(left))
    if rates is not None and count < len(left):
        return [left[place] for place in visits([rates[shard] for shard in left], count, step)]
    return sorted(left[(step * count + i) % len(left)] for i in range(count))


def _inclusion(rates: Sequence[float], count: int) -> tuple[list[int], list[tuple[int, float]]]:
    """Return the places that are visited at every step, and the probabilities of the others, in proportion to their rates."""
    always: list[int] = []
    others = list(range(len(rates)))
    while others:
        scale = (count - len(always)) / sum(rates[place] for place in others)
        above = [place for place in others if rates[place] * scale >= _CERTAIN]
        if not above:
            return always, [(place, rates[place] * scale) for place in others]
        always += above
        others = [place for place in others if place not in above]
    return always, []
