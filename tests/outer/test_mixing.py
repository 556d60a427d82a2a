"""Visits: as often as their rates say, spread in time, without state; costs recorded so coarsely that they can be repeated."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt.outer.mixing import cost_record, recorded_costs, turn, visit_rates, visits

FAMILIES = ("a", "a", "a", "b", "c", "c")
COSTS = (1.0, 1.0, 2.0, 8.0, 1.0, 3.0)


def shares(rates, per_step: int, of, steps: int = 2000) -> dict[str, float]:
    """Return every family's part of what `of` says that a visit weighs."""
    total = dict.fromkeys(FAMILIES, 0.0)
    for step in range(steps):
        for shard in visits(rates, per_step, step):
            total[FAMILIES[shard]] += of[shard]
    return {name: value / sum(total.values()) for name, value in total.items()}


def test_families_get_equal_steps_or_equal_time() -> None:
    same = pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, abs=0.003)
    assert shares(visit_rates(FAMILIES, COSTS, "steps"), 2, (1.0,) * 6) == same
    assert shares(visit_rates(FAMILIES, COSTS, "time"), 1, COSTS) == same
    by_shard = shares(visit_rates(FAMILIES, COSTS, "shards"), 2, (1.0,) * 6)
    assert by_shard == pytest.approx({"a": 1 / 2, "b": 1 / 6, "c": 1 / 3}, abs=0.003)


def test_inside_a_family_shards_are_visited_equally_often() -> None:
    rates = visit_rates(FAMILIES, COSTS, "time")
    assert rates[0] == rates[1] == rates[2] == 1 / 4
    assert rates[3] == 1 / 8
    assert rates[4] == rates[5] == 1 / 4


rates_of_some = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(rates_of_some, st.integers(1, 12), st.integers(0, 10**9))
def test_a_step_has_as_many_different_shards_as_asked_for(rates: list[float], per_step: int, step: int) -> None:
    found = visits(rates, per_step, step)
    assert len(found) == min(per_step, len(rates))
    assert found == sorted(set(found))
    assert set(found) <= set(range(len(rates)))


@settings(max_examples=50, deadline=None)
@given(rates_of_some, st.integers(1, 6))
def test_visits_follow_the_rates_and_are_spread_evenly(rates: list[float], per_step: int) -> None:
    steps = 600
    chosen = [set(visits(rates, per_step, step)) for step in range(steps)]
    count = [sum(place in step for step in chosen) for place in range(len(rates))]
    free = [place for place in range(len(rates)) if count[place] < steps]
    for one in free:
        for other in free:  # among those that are not visited at every step, counts are in proportion
            expected = count[one] * rates[other] / rates[one]
            assert abs(count[other] - expected) <= 12 * max(1.0, rates[other] / rates[one])
        half = sum(one in step for step in chosen[: steps // 2])
        assert abs(half - count[one] / 2) <= 8


def test_a_shard_that_would_be_due_more_than_once_a_step_is_due_at_every_step() -> None:
    rates = (100.0, 1.0, 1.0, 1.0)
    chosen = [visits(rates, 2, step) for step in range(300)]
    assert all(0 in step for step in chosen)
    for place in (1, 2, 3):
        assert abs(sum(place in step for step in chosen) - 100) <= 4
    assert visits((1.0, 5.0), 2, 7) == visits((1.0, 5.0), 9, 7) == [0, 1]


def test_turns_are_as_they_always_were_without_rates() -> None:
    left = [0, 2, 3, 5, 7]
    for step in range(20):
        assert turn(left, 2, step) == sorted(left[(step * 2 + i) % 5] for i in range(2))
        assert turn(left, None, step) == turn(left, 9, step) == left


def test_turns_by_rates_are_among_those_left() -> None:
    rates = [1.0] * 8
    seen = [shard for step in range(500) for shard in turn([1, 4, 6], 1, step, rates)]
    assert set(seen) == {1, 4, 6}
    assert max(map(seen.count, (1, 4, 6))) - min(map(seen.count, (1, 4, 6))) <= 5
    assert turn([1, 4], 3, 0, rates) == [1, 4]
    assert turn([1, 4, 6], 2, 11, rates) == turn([1, 4, 6], 2, 11, rates)


def test_costs_are_recorded_relative_and_in_half_powers_of_two() -> None:
    seconds = {"slow": 0.01, "fast": 0.001, "middle": 0.0042}
    record = cost_record(seconds)
    assert record == {"fast": 0, "middle": 4, "slow": 7} == json.loads(json.dumps(record))
    assert cost_record({name: 17.0 * value for name, value in seconds.items()}) in (record, {"fast": 0, "middle": 4, "slow": 6})
    back = recorded_costs(record)
    for name, value in seconds.items():
        assert 2**-0.5 <= back[name] / (value / 0.001) <= 2**0.5
    assert recorded_costs(cost_record(back)) == back
    assert cost_record({}) == {}
    with pytest.raises(ValueError, match="cost of fast must be > 0 and finite, got 0"):
        cost_record({"fast": 0.0})
    with pytest.raises(ValueError, match="must be > 0 and finite, got nan"):
        cost_record({"fast": math.nan})
