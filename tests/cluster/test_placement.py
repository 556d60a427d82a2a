"""Placement against brute force, the bound of its rule, and groups that take turns."""

import itertools
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt.cluster import LocalPool
from metaopt.cluster.placement import longest_first, makespan, place
from tests.cluster.workers import AccumulatorSetup, Driver

costs_of_some = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=7).map(lambda values: dict(enumerate(values)))


def best(costs: dict[int, float], workers: int, groups) -> float:
    """Try every placement."""
    everything = itertools.product(range(workers), repeat=len(costs))
    return min(sum(makespan(group, costs, dict(zip(costs, where, strict=True))) for group in groups) for where in everything)


@settings(max_examples=100, deadline=None)
@given(costs_of_some, st.integers(1, 3))
def test_one_group_is_within_a_third_of_the_best(costs: dict[int, float], workers: int) -> None:
    found = place(costs, workers)
    assert found.keys() == costs.keys()
    assert set(found.values()) <= set(range(workers))
    assert makespan(list(costs), costs, found) <= best(costs, workers, [list(costs)]) * (4 / 3 - 1 / (3 * workers)) + 1e-9


def test_a_case_by_hand() -> None:
    assert place({0: 3.0, 1: 5.0, 2: 2.0, 3: 4.0}, 2) == {1: 0, 3: 1, 0: 1, 2: 0}  # 5 + 2 and 4 + 3
    assert place({7: 1.0}, 3) == {7: 0}
    assert place({}, 2) == {}
    assert set(place(dict.fromkeys(range(6), 1.0), 3).values()) == {0, 1, 2}


def test_groups_that_take_turns_are_each_spread() -> None:
    """Shards 0 and 2 are at work together, then 1 and 3: by the number of the shard one worker would have each pair to itself."""
    costs, groups = dict.fromkeys(range(4), 1.0), [(0, 2), (1, 3)]
    by_number = {work: work % 2 for work in costs}
    assert sum(makespan(group, costs, by_number) for group in groups) == 4.0
    found = place(costs, 2, groups)
    assert sum(makespan(group, costs, found) for group in groups) == 2.0
    assert sorted(found.values()) == [0, 0, 1, 1]


@settings(max_examples=60, deadline=None)
@given(costs_of_some.filter(lambda costs: len(costs) >= 4), st.integers(2, 3), st.randoms(use_true_random=False))
def test_groups_are_close_to_the_best(costs: dict[int, float], workers: int, random) -> None:
    ids = list(costs)
    random.shuffle(ids)
    groups = [ids[: len(ids) // 2], ids[len(ids) // 2 :]]
    found = place(costs, workers, groups)
    assert sum(makespan(group, costs, found) for group in groups) <= 4 / 3 * best(costs, workers, groups) + 1e-9


def test_shards_that_take_turns_are_placed_nearly_as_well_as_can_be() -> None:
    """Overlapping groups, as when a few of the shards work in each outer step, the next ones in the next."""
    draw, ratios = Random(0), []
    for _ in range(150):
        count, per_step = draw.randint(4, 7), draw.randint(2, 3)
        costs = {work: draw.choice([1.0, 1.0, 2.0, 4.0, 8.0]) for work in range(count)}
        groups = [tuple({(step * per_step + i) % count for i in range(per_step)}) for step in range(count)]
        found = place(costs, 2, groups)
        ratios.append(sum(makespan(group, costs, found) for group in groups) / best(costs, 2, groups))
    assert sum(ratios) / len(ratios) < 1.0035  # by the load alone, without what it adds to a group: 1.0046
    assert max(ratios) < 1.1


def test_work_outside_of_all_groups_is_placed_too() -> None:
    assert set(place({0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}, 2, [(0, 1)])) == {0, 1, 2, 3}


def test_the_longest_are_issued_first() -> None:
    assert longest_first([3, 1, 2, 9], {1: 1.0, 2: 5.0, 3: 1.0}) == [2, 1, 3, 9]
    assert longest_first([3, 1, 2], {}) == [1, 2, 3]


def test_balance_changes_no_result() -> None:
    def totals(balanced: bool) -> list[float]:
        pool, driver = LocalPool(AccumulatorSetup()), Driver(4)
        if balanced:
            pool.balance({0: 1.0, 1: 9.0, 2: 3.0}, [(0, 1), (2, 3)])
        results = [driver.step(pool, step) for step in range(3)][-1]
        assert [result.item.work_id for result in results] == [0, 1, 2, 3]
        return [float(result.value["sum"]) for result in results]

    assert totals(True) == totals(False)


@pytest.mark.slow
@pytest.mark.ray
def test_ray_workers_get_what_was_placed_on_them(ray_session) -> None:
    from metaopt.cluster import make_pool

    costs = {0: 1.0, 1: 1.0, 2: 8.0, 3: 5.0, 4: 1.0}
    with make_pool(2, None, AccumulatorSetup()) as pool:
        pool.balance(costs)
        results = Driver(5).step(pool, 0)
        assert {result.item.work_id: result.worker for result in results} == place(costs, 2)
        assert [result.item.work_id for result in results] == [0, 1, 2, 3, 4]
        expected = Driver(5).step(LocalPool(AccumulatorSetup()), 0)
        assert [float(r.value["sum"]) for r in results] == [float(r.value["sum"]) for r in expected]
