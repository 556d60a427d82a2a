"""What the methods say about themselves: memory, cost, and the table of both."""

import dataclasses
import re

import pytest

from metaopt.estimators.hypergradients import METHODS, DiscountedForward, ForwardShared, Implicit, Memory, OneStep, Unrolled, table

# (recipe, T, N) -> (cost, memory), by hand from the formulas that the table prints.
CASES = [
    (OneStep(), 100, 3, 103, Memory(1, 1)),
    (DiscountedForward(), 100, 3, 100 + 600 + 1, Memory(3, 3)),
    (DiscountedForward(0.9), 100, 3, 701, Memory(3, 3)),
    (DiscountedForward(0.0), 100, 3, 107, Memory(3, 3)),
    (Unrolled(checkpoint_steps=100), 100, 3, 301, Memory(1, 100)),
    (Unrolled(), 100, 3, 301 + 90, Memory(10, 10)),
    (Unrolled(10), 100, 3, 100 + 20 + 8 + 1, Memory(3, 4)),
    (Unrolled(1), 100, 3, OneStep().cost(100, 3), Memory(1, 1)),
    (Unrolled(50, backend="higher"), 100, 3, 201, Memory(1, 50)),
    (ForwardShared(1), 100, 3, DiscountedForward().cost(100, 3), Memory(3, 3)),
    (ForwardShared(5), 100, 15, 100 + 15 * 100 * 6 / 5 + 1, Memory(15, 15)),
    (Implicit(steps=20), 100, 1, 100 + 40 + 6 + 2, Memory(4, 1)),
    (Implicit("cg", steps=20), 100, 1, 154, Memory(4, 1)),
]


@pytest.mark.parametrize(("recipe", "steps", "columns", "cost", "memory"), CASES, ids=str)
def test_cost_and_memory(recipe, steps, columns, cost, memory):
    assert recipe.cost(steps, columns) == cost
    assert recipe.memory(steps, columns) == memory


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50, 99, 100, 101])
def test_checkpoints_hold_about_two_roots(steps):
    states, graphs = Unrolled().memory(steps, 1)
    assert states + graphs <= 2 * steps**0.5 + 2
    assert states * graphs >= steps, "the pieces cover the window"


@pytest.mark.parametrize(("steps", "segments"), [(12, 4), (13, 4), (5, 5), (7, 2)])
def test_shared_costs_what_is_active(steps, segments):
    """Brute force: a column costs a product at each step from the first of its segment on."""
    firsts = [min(t for t in range(steps) if t * segments // steps == segment) for segment in range(segments)]
    products = sum(2 * (steps - first) for first in firsts)
    assert ForwardShared(segments).cost(steps, 2 * segments) == steps + 2 * products + 1
    assert ForwardShared(segments).cost(steps, segments) < DiscountedForward().cost(steps, segments)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_states_its_bias_in_one_sentence(name):
    recipe = METHODS[name]
    assert recipe.name == name
    assert re.fullmatch(r"[A-Z][^.]*\.", recipe.bias)
    assert hash(recipe()) == hash(dataclasses.replace(recipe()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe().name = "other"


def test_the_table_has_a_row_a_method():
    head, line, *rows = table().splitlines()
    assert head == "| method | bias | memory | cost | where |"
    assert line == "|---|---|---|---|---|"
    assert [row.split("`")[1] for row in rows] == list(METHODS)
    assert all(row.count("|") == head.count("|") for row in rows)
