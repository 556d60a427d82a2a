"""Which worker does which piece of work, so that none waits long for the others: pure functions of costs."""

from collections.abc import Mapping, Sequence

__all__ = ["longest_first", "makespan", "place"]


def place(costs: Mapping[int, float], workers: int, groups: Sequence[Sequence[int]] = ()) -> dict[int, int]:
    """Return the worker of every piece of work: work id -> index in [0, workers).

    Pieces keep their worker for ever (it holds their state), while only a group of them is at work at a time. The longest pieces are placed
    first, each where the time of all groups, one after the other, grows least; ties go to the worker that has the least work in the
    piece's own groups, then to the lowest index. With one group that is the rule of the longest processing time.

    Args:
        costs: seconds, or anything in proportion, by work id.
        workers: >= 1.
        groups: work ids that are at work at the same time; empty for one group of all. Ids that are in none count as a group of all.

    Source: Graham, 1969, "Bounds on multiprocessing timing anomalies" (one group: at most 4/3 of the best).
    """
    together = [tuple(group) for group in groups] or [tuple(costs)]
    if left := tuple(sorted(set(costs) - {work for group in together for work in group})):
        together.append(left)
    member: dict[int, list[int]] = {work: [] for work in costs}
    for g, group in enumerate(together):
        for work in group:
            member[work].append(g)
    load = [[0.0] * workers for _ in together]
    found = {}
    for work in longest_first(costs, costs):
        peaks = {g: max(load[g]) for g in member[work]}

        def grows(worker: int, cost: float = costs[work], peaks: dict[int, float] = peaks) -> float:
            return sum(max(0.0, load[g][worker] + cost - peak) for g, peak in peaks.items())

        worker = min(range(workers), key=lambda w: (grows(w), sum(load[g][w] for g in peaks), w))
        found[work] = worker
        for g in member[work]:
            load[g][worker] += costs[work]
    return dict(sorted(found.items()))


def longest_first(works: Sequence[int] | Mapping[int, float], costs: Mapping[int, float]) -> list[int]:
    """Return work ids in the order in which to issue them: the longest first, ties by id; those without a known cost last."""
    return sorted(works, key=lambda work: (-costs.get(work, 0.0), work))


def makespan(works: Sequence[int], costs: Mapping[int, float], placement: Mapping[int, int]) -> float:
    """Return how long a group takes when every worker does its pieces one after the other."""
    load: dict[int, float] = {}
    for work in works:
        load[placement[work]] = load.get(placement[work], 0.0) + costs[work]
    return max(load.values(), default=0.0)
