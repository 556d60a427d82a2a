"""A pool of several workers without any process: what differs between worker counts shows in milliseconds."""

from typing import Self

from metaopt.cluster.local import LocalPool
from metaopt.cluster.placement import place


class Spread:
    """Workers in this process, asked in turn from the last to the first; work is placed as Ray's pool places it."""

    def __init__(self, setup, workers: int) -> None:
        self.workers, self.pools, self.places = workers, [LocalPool(setup) for _ in range(workers)], {}
        self.share, self.stats = self.pools[0].share, self.pools[0].stats

    def balance(self, costs, groups=()) -> None:
        self.places = place(costs, self.workers, groups)

    def run(self, items, recover):
        results = []
        for index in reversed(range(self.workers)):
            own = [item for item in items if self.places.get(item.work_id, item.work_id % self.workers) == index]
            results += self.pools[index].run(own, recover)
        return sorted(results, key=lambda result: result.item.work_id)

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None: ...
