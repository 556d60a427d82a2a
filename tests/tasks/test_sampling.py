"""Templates drawn from a space: pure, distinct, spread over the splits, stable when more are wanted."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt.errors import TaskError
from metaopt.tasks import SPLITS
from metaopt.tasks.floors import FLOORS, floor
from metaopt.tasks.sampling import Choices, Integers, LogIntegers, Sampler, draw_templates

SPACE = {
    "width": LogIntegers(8, 128),
    "depth": Integers(0, 4),
    "activation": Choices(("relu", "relu", "tanh", "gelu")),
    "batch": LogIntegers(4, 512, multiple=4),
}
COUNTS = {"meta_train": 30, "meta_valid": 8, "meta_test": 12}


def merged(shape):
    """Depth 0 has neither width nor activation."""
    return {**shape, "width": 0, "activation": "linear"} if shape["depth"] == 0 else shape


def names_of(grid) -> list[str]:
    return [name for split in SPLITS for name in grid[split]]


def test_templates_are_distinct_disjoint_and_as_many_as_asked() -> None:
    grid = draw_templates("f", SPACE, COUNTS, merged)
    assert grid == draw_templates("f", SPACE, COUNTS, merged)
    assert {split: len(grid[split]) for split in SPLITS} == COUNTS
    assert len(set(names_of(grid))) == sum(COUNTS.values())
    shapes = [tuple(shape.values()) for split in SPLITS for shape in grid[split].values()]
    assert len(set(shapes)) == len(shapes)
    assert set(names_of(grid)) != set(names_of(draw_templates("g", SPACE, COUNTS, merged)))


def test_values_lie_on_their_axes_and_names_spell_them() -> None:
    grid = draw_templates("f", SPACE, COUNTS)
    for split in SPLITS:
        for name, shape in grid[split].items():
            assert 8 <= shape["width"] <= 128
            assert 0 <= shape["depth"] <= 4
            assert 4 <= shape["batch"] <= 512
            assert shape["batch"] % 4 == 0
            assert name == f"width{shape['width']}-depth{shape['depth']}-{shape['activation']}-batch{shape['batch']}"


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.sampled_from(SPLITS), st.integers(0, 20)), st.sampled_from(SPLITS))
def test_asking_for_more_of_one_split_keeps_all_that_was_there(counts: dict[str, int], split: str) -> None:
    before = draw_templates("f", SPACE, counts)
    after = draw_templates("f", SPACE, {**counts, split: counts.get(split, 0) + 5})
    assert all(before[other] == after[other] for other in SPLITS if other != split)
    assert list(after[split])[: len(before[split])] == list(before[split])


def test_canonical_shapes_are_drawn_once() -> None:
    grid = draw_templates(
        "f",
        {"depth": Integers(0, 1), "width": Integers(1, 40)},
        {"meta_train": 5, "meta_valid": 2, "meta_test": 2},
        lambda s: {**s, "width": s["width"] * s["depth"]},
    )
    assert sum(shape["depth"] == 0 for split in SPLITS for shape in grid[split].values()) <= 1


def test_a_space_that_is_too_small_is_named() -> None:
    with pytest.raises(TaskError, match=r"family f: \{'meta_train': 9\} templates do not fit its space, which gave \d meta_train"):
        draw_templates("f", {"depth": Integers(0, 4)}, {"meta_train": 9})


def test_axes_are_drawn_as_they_say() -> None:
    samplers = [Sampler("f", "t", i) for i in range(2000)]
    choices = Counter(SPACE["activation"].draw(sampler, "activation") for sampler in samplers)
    assert 1.6 < choices["relu"] / choices["tanh"] < 2.4
    integers = Counter(Integers(0, 4).draw(sampler, "depth") for sampler in samplers)
    assert set(integers) == set(range(5))
    assert max(integers.values()) < 1.3 * min(integers.values())
    octaves = Counter(LogIntegers(8, 127).draw(sampler, "width").bit_length() for sampler in samplers)
    assert set(octaves) == {4, 5, 6, 7}
    assert max(octaves.values()) < 1.3 * min(octaves.values())


def test_floors_default_to_zero() -> None:
    assert floor("no_such_family") == 0.0
    assert all(value >= 0.0 for value in FLOORS.values())
