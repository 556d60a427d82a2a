"""Relative choices: what each one does, by hand, and that bounds, masks and the choice that keeps hold for any value."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from metaopt.errors import ConfigError
from metaopt.learners.policies import (
    HEADS,
    KNOB_SPECS,
    KNOBS,
    REGISTER_ACTIONS,
    TABLES,
    Table,
    change_features,
    find_table,
    head_mask,
    one_hot,
    perturbed,
    start_values,
    turned,
)

PUBLISHED, WIDE = TABLES["published"], TABLES["wide"]
ALL = torch.ones(8, dtype=torch.bool)
CLIP = KNOBS.index("clip_ratio")

# By hand: start, low, high, least and largest start of an episode, and what the choices make of the start.
HAND = {
    "lr": (1e-3, 1e-8, 1.0, 1e-5, 0.1, (5e-4, 7.07e-4, 9e-4, 1e-3, 1.1e-3, 1.414e-3, 2e-3)),
    "weight_decay": (1e-2, 1e-8, 1.0, 1e-3, 0.1, (5e-3, 2e-2)),
    "epsilon": (1e-6, 1e-8, 1.0, 1e-7, 1e-5, (5e-7, 2e-6)),
    "one_minus_beta2": (1e-2, 1e-5, 0.1, 1e-3, 0.1, (5e-3, 2e-2)),
    "one_minus_beta1": (0.1, 1e-5, 1.0, 1e-2, 1.0, (0.05, 0.2)),
    # The odds of 0.8 are 4.
    "clip_ratio": (
        0.8,
        1e-10,
        1 - 1e-10,
        4 / (4 + math.e),
        4 * math.e / (1 + 4 * math.e),
        tuple(4 * math.exp(shift) / (1 + 4 * math.exp(shift)) for shift in (-1, -0.3, 0.3, 1)),
    ),
    "clip_decay": (1e-2, 1e-5, 1.0, 5e-3, 2e-2, (5e-3, 1e-2, 2e-2)),
    "trust_decay": (0.05, 1e-5, 1.0, 0.025, 0.1, (0.1 / 3, 0.05, 0.075)),
}
ADDED = {"weight_decay": 1, "epsilon": 1, "one_minus_beta2": 1, "one_minus_beta1": 1, "clip_ratio": 2}  # place of what "wide" adds


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


def actions(index):
    return torch.full((9,), index)


def random_actions(table, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(-1, n, (count,), generator=generator) for n in table.nvec], dim=1)


def random_values(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return perturbed(start_values(), torch.rand(count, 8, generator=generator, dtype=torch.float64), ALL)


def test_order_and_sizes_are_those_that_networks_are_built_for():
    assert tuple(HAND) == KNOBS == tuple(knob.name for knob in KNOB_SPECS)
    assert ("registers", *KNOBS) == HEADS
    assert REGISTER_ACTIONS == ("none", "load0", "load1", "load2", "save0", "save1", "save2", "swap0", "swap1", "swap2")
    assert PUBLISHED.nvec == (10, 7, 2, 2, 2, 2, 4, 3, 3)
    assert WIDE.nvec == (10, 7, 3, 3, 3, 3, 5, 3, 3)
    assert sum(PUBLISHED.nvec) == 35


def test_starts_and_bounds_are_the_published_ones():
    assert start_values().tolist() == [row[0] for row in HAND.values()]
    assert start_values().dtype == torch.float64
    assert [(knob.low, knob.high) for knob in KNOB_SPECS] == [row[1:3] for row in HAND.values()]
    assert all(knob.low < knob.start < knob.high for knob in KNOB_SPECS)


@pytest.mark.parametrize("name", KNOBS)
def test_each_published_choice_by_hand(name):
    knob = KNOBS.index(name)
    for choice, expected in enumerate(HAND[name][-1]):
        action = actions(-1)
        action[1 + knob] = choice
        values = turned(PUBLISHED, start_values(), action, ALL)
        assert float(values[knob]) == pytest.approx(expected, rel=1e-12)
        others = torch.arange(8) != knob
        assert torch.equal(values[others], start_values()[others])


@pytest.mark.parametrize("name", KNOBS)
def test_wide_choices_are_the_published_ones_and_one_that_keeps(name):
    knob, found = KNOBS.index(name), []
    for choice in range(WIDE.nvec[1 + knob]):
        action = actions(-1)
        action[1 + knob] = choice
        found.append(float(turned(WIDE, start_values(), action, ALL)[knob]))
    expected = list(HAND[name][-1])
    if name == "lr":
        expected = [1e-4, 4e-4, 8e-4, 1e-3, 1.25e-3, 2.5e-3, 1e-2]
    elif name in ADDED:
        expected.insert(ADDED[name], HAND[name][0])
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_turning_one_way_ends_at_the_bounds(table):
    lowest, highest = actions(0), torch.tensor(table.nvec) - 1
    for action, end in ((lowest, 1), (highest, 2)):
        values = start_values()
        for _ in range(60):
            values = turned(table, values, action, ALL)
        assert values.tolist() == [row[end] for row in HAND.values()]
        assert turned(table, values, lowest + highest - action, ALL).tolist() != values.tolist()  # and there is a way back


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=8, max_size=8), st.integers(0, 10**6))
@example([0.0] * 8, 0)
@example([1.0] * 8, 0)
def test_any_value_and_choice_stays_inside_of_the_bounds(given_values, seed):
    low, high = (doubles([getattr(knob, end) for knob in KNOB_SPECS]) for end in ("low", "high"))
    values = turned(WIDE, doubles(given_values), random_actions(WIDE, 4, seed), ALL)
    assert ((low <= values) & (values <= high)).all()
    started = perturbed(doubles(given_values), torch.rand(4, 8, generator=torch.Generator().manual_seed(seed)), ALL)
    assert ((low <= started) & (started <= high)).all()
    for row in (values, started):
        assert change_features(row, doubles(given_values), ALL).isfinite().all()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6))
def test_a_choice_that_keeps_changes_no_bit(seed):
    values = random_values(4, seed)
    keeps = torch.tensor([0, *(row.index(0.0 if knob == CLIP else 1.0) for knob, row in enumerate(WIDE.factors))])
    assert torch.equal(turned(WIDE, values, keeps, ALL), values)
    assert torch.equal(turned(PUBLISHED, values, actions(-1), ALL), values)


def test_masked_knobs_keep_any_value_whatever_is_chosen():
    odd = torch.where(torch.arange(8) % 2 == 0, torch.nan, 0.0).double()
    off = torch.zeros(8, dtype=torch.bool)
    for result in (turned(WIDE, odd, actions(0), off), perturbed(odd, torch.rand(8), off)):
        assert_close(result, odd, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(change_features(odd, odd, off), torch.zeros(8, dtype=torch.float64))
    half = torch.arange(8) < 4
    values = turned(WIDE, start_values(), actions(0), half)
    assert torch.equal(values[4:], start_values()[4:])
    assert torch.equal(values[:4], turned(WIDE, start_values(), actions(0), ALL)[:4])
    assert (change_features(values, start_values(), half)[4:] == 0).all()


def test_a_choice_that_the_table_lacks_is_not_silent():
    action = actions(-1)
    action[2] = 2
    assert turned(PUBLISHED, start_values(), action, ALL).isnan().tolist() == [i == 1 for i in range(8)]
    assert not turned(WIDE, start_values(), action, ALL).isnan().any()


def test_the_clipping_ratio_keeps_its_digits_near_both_ends():
    action = actions(-1)
    action[1 + CLIP] = 4  # + 1 in log odds
    for p in (1e-9, 1e-4, 0.5, 1 - 1e-4, 1 - 1e-7):
        values = start_values()
        values[CLIP] = p
        new = turned(WIDE, values, action, ALL)
        assert float(change_features(new, values, ALL)[CLIP]) == pytest.approx(1.0, rel=1e-7)
        assert float(new[CLIP]) == pytest.approx(math.e * p / (1 - p + math.e * p), rel=1e-12)


def test_a_clipping_ratio_that_float32_rounds_to_one_can_still_be_turned():
    values = start_values(clip_ratio=1 - 1e-10).float()
    assert values[CLIP] == 1
    new = turned(WIDE, values, actions(0), ALL)
    assert 0.99 < new[CLIP] < 1
    assert change_features(values, values, ALL).tolist() == [0.0] * 8


def test_perturbed_starts_reach_from_end_to_end_and_are_uniform_between():
    for place, uniform in ((3, 0.0), (0, 0.5), (4, 1.0)):
        found = perturbed(start_values(), torch.full((8,), uniform), ALL)
        assert found.tolist() == pytest.approx([row[place] for row in HAND.values()], rel=1e-12)
    uniform = torch.linspace(0, 1, 11, dtype=torch.float64).unsqueeze(1).expand(-1, 8)
    features = change_features(perturbed(start_values(), uniform, ALL), start_values(), ALL)
    widths = doubles([math.log(high / low) for low, high in ((0.01, 100), *[(0.1, 10)] * 4, (1, math.exp(2)), (0.5, 2), (0.5, 2))])
    assert_close(features.diff(dim=0), (widths / 10).expand(10, 8), rtol=1e-8, atol=0)  # log-uniform; uniform in log odds


def test_perturbation_is_clamped_where_a_given_start_is_near_a_bound():
    start = start_values(lr=0.5, epsilon=1e-8, one_minus_beta2=0.1)
    high = perturbed(start, torch.full((8,), 0.999), ALL)
    low = perturbed(start, torch.zeros(8), ALL)
    assert (float(high[0]), float(low[2]), float(high[3])) == (1.0, 1e-8, 0.1)


def test_features_add_up_the_changes_made():
    values, total = start_values().expand(6, 8), torch.zeros(6, 8, dtype=torch.float64)
    start = values
    table = [[shift if knob == CLIP else math.log(shift) for shift in row] for knob, row in enumerate(PUBLISHED.factors)]
    for seed in range(3):
        action = random_actions(PUBLISHED, 6, seed).clamp(min=0)
        values = turned(PUBLISHED, values, action, ALL)
        total += doubles([[table[knob][int(choice)] for knob, choice in enumerate(row[1:])] for row in action])
    # Three doublings from the starts meet no bound.
    assert_close(change_features(values, start, ALL), total, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_one_hot_head_by_head(table):
    action = random_actions(table, 50)
    mask = torch.rand(50, 9, generator=torch.Generator().manual_seed(1)) < 0.8
    found = one_hot(table, action, mask)
    assert found.shape == (50, 35)
    assert found.dtype == torch.float32
    for row, acting, vector in zip(action.tolist(), mask.tolist(), found, strict=True):
        expected = []
        for name, width, choice, active in zip(HEADS, PUBLISHED.nvec, row, acting, strict=True):
            part = [0.0] * width
            if table is WIDE and name in ADDED:
                choice = -1 if choice == ADDED[name] else choice - (choice > ADDED[name])
            if active and choice >= 0:
                part[choice] = 1.0
            expected += part
        assert vector.tolist() == expected


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_one_hot_tells_the_choices_of_a_head_apart(table):
    for head, choices in enumerate(table.nvec):
        action = torch.zeros(choices, 9, dtype=torch.int64)
        action[:, head] = torch.arange(choices)
        assert len(one_hot(table, action, head_mask()).unique(dim=0)) == choices


def test_no_previous_action_is_zeros():
    assert not one_hot(WIDE, actions(-1), head_mask()).any()


def test_head_mask_names_what_acts():
    assert head_mask().all()
    assert head_mask(("one_minus_beta1", "lr"), registers=False).tolist() == [False, True, False, False, False, True] + [False] * 3


def test_leading_shapes_and_vmap_equal_a_loop():
    values, action = random_values(12, 1), random_actions(WIDE, 12)
    mask = torch.rand(12, 9, generator=torch.Generator().manual_seed(2)) < 0.7
    uniform = torch.rand(12, 8, generator=torch.Generator().manual_seed(3))

    def everything(values, action, mask, uniform):
        new = turned(WIDE, values, action, mask[..., 1:])
        started = perturbed(values, uniform, mask[..., 1:])
        return new, started, change_features(new, values, mask[..., 1:]), one_hot(WIDE, action, mask)

    arguments = (values, action, mask, uniform)
    loop = [torch.stack(column) for column in zip(*(everything(*row) for row in zip(*arguments, strict=True)), strict=True)]
    vmapped = torch.func.vmap(everything)(*arguments)
    broad = everything(*arguments)
    twice = everything(*(x.unflatten(0, (3, 4)) for x in arguments))
    for one, two, three, four in zip(loop, vmapped, broad, [x.flatten(0, 1) for x in twice], strict=True):
        assert_close(two, one, rtol=1e-14, atol=1e-14)
        assert_close(three, one, rtol=1e-14, atol=1e-14)
        assert_close(four, one, rtol=1e-14, atol=1e-14)


def test_one_row_of_values_serves_many_actions():
    action = random_actions(WIDE, 5)
    found = turned(WIDE, start_values(), action, ALL)
    assert torch.equal(found, torch.stack([turned(WIDE, start_values(), row, ALL) for row in action]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: start_values(learning_rate=1e-3), "no knob is called 'learning_rate'"),
        (lambda: start_values(weight_decy=1e-3), "did you mean 'weight_decay'?"),
        (lambda: start_values(lr=2.0), r"knob lr must start in \[1e-08, 1\], got 2.0; leave it out to start at 0.001"),
        (lambda: start_values(clip_ratio=1.0), r"\[1e-10, 0.9999999999\], got 1.0"),
        (lambda: start_values(epsilon=math.nan), "got nan"),
        (lambda: head_mask(["lr", "beta1"]), "no knob is called 'beta1'"),
        (lambda: find_table("widee"), "no table of choices is called 'widee'; did you mean 'wide'? known: published, wide"),
        (lambda: Table("short", (WIDE.factors[0], (0.5, 0.9, 2.0), *WIDE.factors[2:])), "must have 2 choices of weight_decay"),
        (lambda: Table("few", WIDE.factors[:3]), "a row of choices for each of 8 knobs, got 3"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        call()


def test_a_table_of_ones_own_may_keep_or_not():
    table = Table("fine", (*PUBLISHED.factors[:6], (0.9, 1.0, 1.1), (0.9, 1.0, 1.1)))
    assert table.nvec == PUBLISHED.nvec
    assert find_table("wide") is WIDE
