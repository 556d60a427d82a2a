"""The 161 inputs: equal to a second implementation from whole histories, and finite whatever comes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from torch.utils import _pytree as pytree

from metaopt.errors import IncompatibleCheckpointError
from metaopt.learners.policies import (
    END_WEIGHTS,
    INPUT_LIMIT,
    INPUTS,
    KNOBS,
    LAYOUT,
    LOSS_LIMIT,
    NAMES,
    STATISTICS,
    TABLES,
    Measured,
    ObservationState,
    cdf_push,
    cdf_start,
    head_mask,
    observation_start,
    observe,
    start_values,
)
from metaopt.learners.policies.observation import ROUNDING
from tests.learners.policies.decisions import (
    CDFS,
    COLUMN,
    INF,
    MASKS,
    NAN,
    History,
    cdf_columns,
    column,
    episode,
    measured,
    play,
    reference,
)

SIZES = {
    "statistics_raw": 13,
    "statistics_cdf": 65,
    "progress": 1,
    "action_vector": 35,
    "loss_ratio": 7,
    "outer_update_ratio": 6,
    "outer_norm_ratio": 6,
    "log_loss": 14,
    "restart_loss": 3,
    "restart_progress": 3,
    "action_features": 8,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("seed", range(3))
def test_rows_equal_a_second_implementation_from_whole_histories(mask, table, seed):
    decisions = episode(16, seed, bad=0.15 * seed, mask=MASKS[mask], table=TABLES[table])
    found, expected = play(decisions, table=TABLES[table]), reference(decisions, TABLES[table])
    off = ((found - expected).abs() > 2e-6).nonzero().tolist()
    assert not off, [(k, NAMES[i], float(found[k, i]), float(expected[k, i])) for k, i in off[:8]]


def test_layout_tiles_the_inputs():
    assert INPUTS == 161 == len(NAMES) == len(set(NAMES))
    assert {group: place.stop - place.start for group, place in LAYOUT.items()} == SIZES
    places = list(LAYOUT.values())
    assert [place.start for place in places] == [0, *(place.stop for place in places[:-1])]
    assert NAMES[LAYOUT["statistics_raw"]] == STATISTICS
    assert NAMES[LAYOUT["statistics_cdf"]][:5] == tuple(f"did_grad_clip_cdf_{end:g}" for end in END_WEIGHTS)
    assert NAMES[LAYOUT["action_features"]] == tuple(f"change_of_{knob}" for knob in KNOBS)


def test_columns_of_a_history_are_those_of_cdf():
    decisions = episode(20, bad=0.0, eval_share=1.0)
    rows = play(decisions)
    state, first = cdf_start((15,)), decisions[0]
    for decision, row in zip(decisions, rows, strict=True):
        logs = [(getattr(decision, of).double() / getattr(first, of).double()).log() for of in ("train_loss", "eval_loss")]
        state, features = cdf_push(state, torch.cat([decision.statistics, torch.stack(logs)]), ROUNDING)
        assert torch.equal(row[LAYOUT["statistics_cdf"]], features[:13].flatten().float())
        assert torch.equal(cdf_columns(row, "log_train_loss"), features[13].float())
        assert torch.equal(cdf_columns(row, "log_eval_loss"), features[14].float())


def test_float32_is_widened_before_anything_is_computed():
    decisions = episode(10, bad=0.1)
    wide = [Measured(*(x.double() if x.is_floating_point() else x for x in decision)) for decision in decisions]
    assert torch.equal(play(decisions), play(wide))


def test_vmap_equals_a_loop():
    runs = [episode(8, seed, bad=0.2, mask=mask) for seed, mask in enumerate((*MASKS.values(), None))]
    state = pytree.tree_map(lambda x: torch.stack([x] * len(runs)), observation_start())
    rows = []
    for decisions in zip(*runs, strict=True):
        state, row = torch.func.vmap(observe)(state, Measured(*map(torch.stack, zip(*decisions, strict=True))))
        rows.append(row)
    found = torch.stack(rows, dim=1)
    assert found.dtype == torch.float32
    assert_close(found, torch.stack([play(run) for run in runs]), rtol=1e-6, atol=1e-7)


def test_nothing_is_changed_on_the_way():
    state = observation_start()
    for decision in episode(4, bad=0.2):
        kept = [x.clone() for x in (*state.flat().values(), *decision)]
        new, _ = observe(state, decision)
        for x, y in zip((*state.flat().values(), *decision), kept, strict=True):
            assert_close(x, y, rtol=0, atol=0, equal_nan=True)
        state = new


@pytest.mark.parametrize("at", [0, 1, 2, 7])
def test_a_saved_state_goes_on_with_the_same_bits(at, tmp_path):
    decisions = episode(12, bad=0.2)
    expected, state = play(decisions), observation_start()
    for decision in decisions[:at]:
        state, _ = observe(state, decision)
    save_file(state.flat(), tmp_path / "state.safetensors")
    again = ObservationState.from_flat(load_file(tmp_path / "state.safetensors"))
    for name, x in again.flat().items():
        assert_close(x, state.flat()[name], rtol=0, atol=0, equal_nan=True)
    for decision, row in zip(decisions[at:], expected[at:], strict=True):
        again, found = observe(again, decision)
        assert torch.equal(found, row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda flat: flat.pop("cdf.sums"), r"cdf.sums must be \(\(4, 18\), torch.float64\), got None"),
        (lambda flat: flat.update(extra=torch.zeros(1)), "extra must be None"),
        (lambda flat: flat.update(first_loss=torch.zeros(3)), "first_loss must be"),
        (lambda flat: flat.update(param_norm=torch.zeros(())), "param_norm must be .* got .*float32"),
    ],
)
def test_a_state_of_another_kind_is_refused(change, message):
    flat = observation_start().flat()
    change(flat)
    with pytest.raises(IncompatibleCheckpointError, match=message):
        ObservationState.from_flat(flat)


# Edge cases, each as the module promises it.


def test_the_first_decision_has_nothing_to_compare_with():
    for update_norm in (0.0, 0.7, NAN):
        row = play([measured(update_norm=update_norm, progress=0.0)])[0]
        assert (row[CDFS] == 0.5).all()
        for name in ("outer_update_ratio_tanh", "outer_norm_ratio_tanh"):
            assert column(row, name) == 0
        assert not row[LAYOUT["action_vector"]].any()
        assert row[LAYOUT["restart_loss"]].tolist() == [0.0] * 3
        assert row[LAYOUT["restart_progress"]].tolist() == [1.0] * 3


def test_moves_are_compared_from_the_third_decision_on_and_norms_from_the_second():
    norms = [(0.0, 2.0), (1.0, 4.0), (0.5, 2.0), (0.5, 2.0)]
    rows = play([measured(update_norm=move, param_norm=norm) for move, norm in norms])
    assert column(rows, "outer_update_ratio_tanh") == pytest.approx([0, 0, -0.6, 0])  # tanh log x = (x^2 - 1) / (x^2 + 1)
    assert column(rows, "outer_norm_ratio_tanh") == pytest.approx([0, 0.6, -0.6, 0])
    assert (cdf_columns(rows, "outer_update_ratio")[:3] == 0.5).all()
    assert (cdf_columns(rows, "outer_update_ratio")[3] > 0.85).all()
    assert (cdf_columns(rows, "outer_norm_ratio")[:2] == 0.5).all()


def test_a_run_that_stands_still_and_goes_on():
    rows = play([measured(update_norm=move) for move in (0.0, 1.0, 0.0, 0.0, 1.0, 1.0)])
    assert column(rows, "outer_update_ratio_tanh") == pytest.approx([0, 0, -1, 0, 1, 0], abs=1e-5)


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_norm_that_is_not_finite_is_worst_and_the_last_finite_one_stays(bad):
    rows = play([measured(update_norm=x, param_norm=x) for x in (1.0, 2.0, bad, 1.0)])
    for of, expected in (("outer_update_ratio", [0, 0, 1, -0.6]), ("outer_norm_ratio", [0, 0.6, 1, -0.6])):
        assert column(rows, f"{of}_tanh") == pytest.approx(expected)
        assert (cdf_columns(rows, of)[2] == 1).all()
    row = play([measured(param_norm=bad)])[0]
    assert column(row, "outer_norm_ratio_tanh") == 1


@pytest.mark.parametrize(("bad", "nan", "inf"), [(NAN, 1, 0), (INF, 0, 1), (-INF, 0, 1)])
@pytest.mark.parametrize("of", ["train", "eval"])
def test_a_loss_that_is_not_finite_is_told_and_forgotten(bad, nan, inf, of):
    good = [measured(train_loss=x, eval_loss=1.1 * x**0.9) for x in (1.0, 0.8, 0.6, 0.5)]
    rows = play([*good[:3], good[2]._replace(**{f"{of}_loss": torch.tensor(bad)}), good[3]])
    assert (column(rows[3], f"{of}_loss_is_nan"), column(rows[3], f"{of}_loss_is_inf")) == (nan, inf)
    assert (column(rows[3], "loss_ratio_is_nan"), column(rows[3], "loss_ratio_tanh")) == (1, 0)
    for history in (f"log_{of}_loss", "loss_ratio"):
        assert (cdf_columns(rows[3], history) == 1).all()
    other = "eval" if of == "train" else "train"
    assert (column(rows[3], f"{other}_loss_is_nan"), column(rows[3], f"{other}_loss_is_inf")) == (0, 0)
    carried = play([*good[:3], good[2], good[3]])
    assert torch.equal(rows[4], carried[4])


def test_a_run_that_begins_without_a_finite_loss():
    rows = play([measured(train_loss=x, eval_loss=x) for x in (NAN, INF, 1.0, 0.5)])
    assert (cdf_columns(rows[:2], "log_train_loss") == 1).all()
    assert (cdf_columns(rows[2], "log_train_loss") == 0.5).all()
    assert (cdf_columns(rows[3], "log_train_loss") < 0.15).all()


@pytest.mark.parametrize("least", [0.0, -0.0, -3.0, 1e-12])
def test_losses_of_zero_or_below_are_the_least_that_is_told(least):
    rows = play([measured(train_loss=x, eval_loss=x) for x in (1.0, 0.1, least, least, 1e-12, 0.1)])
    floor = play([measured(train_loss=x, eval_loss=x) for x in (1.0, 0.1, *[1 / LOSS_LIMIT] * 3, 0.1)])
    assert_close(rows, floor, rtol=0, atol=1e-6)
    assert not rows[:, [COLUMN["train_loss_is_nan"], COLUMN["eval_loss_is_inf"]]].any()
    assert (rows[2:5, COLUMN["loss_ratio_tanh"]] == 0).all()


def test_losses_that_are_never_positive_are_a_constant():
    rows = play([measured(train_loss=-x, eval_loss=-2 * x) for x in (1.0, 2.0, 0.0)])
    for of in ("log_train_loss", "log_eval_loss", "loss_ratio"):
        assert (cdf_columns(rows, of) == 0.5).all()


def test_the_first_positive_loss_is_the_reference():
    decisions = [measured(train_loss=x, eval_loss=2 * x) for x in (-2.0, 0.0, 4.0, 2.0)]
    floor = math.log(1 / LOSS_LIMIT)
    history, rows = History(), play(decisions)
    for row, x in zip(rows, (floor, floor, 0.0, math.log(0.5)), strict=True):
        assert_close(cdf_columns(row, "log_train_loss"), torch.tensor(history.push(x)), rtol=0, atol=1e-6)
    assert torch.equal(cdf_columns(rows, "log_eval_loss"), cdf_columns(rows, "log_train_loss"))


def test_an_evaluation_loss_that_vanishes_beside_the_other():
    rows = play(
        [measured(train_loss=train, eval_loss=evaluation) for train, evaluation in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1.0, 3.0))]
    )
    assert column(rows, "loss_ratio_tanh") == pytest.approx([-1, 1, 0, 0.8])
    assert not any(column(rows, "loss_ratio_is_nan"))


@pytest.mark.parametrize("left_there", [0.0, 1.0, NAN, INF, -1.0])
def test_without_an_evaluation_loss_its_columns_are_constants(left_there):
    rows = play([measured(train_loss=x, eval_loss=left_there * x, has_eval=False) for x in (1.0, 0.7, 0.6)])
    assert torch.equal(rows[:, LAYOUT["loss_ratio"]], torch.tensor([0, 0, *[0.5] * 5]).expand(3, 7))
    assert torch.equal(rows[:, LAYOUT["log_loss"]][:, 7:], torch.tensor([0, 0, *[0.5] * 5]).expand(3, 7))
    assert (cdf_columns(rows, "log_train_loss")[2] < 0.5).all()


def test_an_evaluation_that_is_left_out_repeats_the_last_in_the_history():
    losses = [1.0, 0.8, 0.7, 0.6]
    with_gap = play([measured(eval_loss=x, has_eval=k != 2) for k, x in enumerate(losses)])
    carried = play([measured(eval_loss=x) for x in (1.0, 0.8, 0.8, 0.6)])
    assert (cdf_columns(with_gap[2], "log_eval_loss") == 0.5).all()
    assert torch.equal(with_gap[3], carried[3])


@pytest.mark.parametrize("left_there", [1e15, 1e-15, 0.0, INF, -1.0])
def test_what_stands_in_for_an_evaluation_loss_leaves_no_trace(left_there):
    losses, there = (NAN, 1.0, NAN, 0.8, 0.9), (False, True, False, True, True)
    clean = [measured(eval_loss=x, has_eval=y) for x, y in zip(losses, there, strict=True)]
    other = [measured(eval_loss=x if y else left_there, has_eval=y) for x, y in zip(losses, there, strict=True)]
    assert torch.equal(play(other), play(clean))


def test_registers_are_compared_with_the_loss_now():
    filled = torch.tensor([True, True, False])
    given = {"register_loss": torch.tensor([0.5, 2.0, 9.0]), "register_filled": filled, "register_progress": torch.tensor([0.25, 0.0, 0.9])}
    for more in ({"eval_loss": 1.0, "train_loss": 7.0}, {"eval_loss": NAN, "train_loss": 1.0, "has_eval": False}):
        row = play([measured(**given, **more, progress=0.75)])[0]
        assert row[LAYOUT["restart_loss"]].tolist() == pytest.approx([-0.6, 0.6, 0.0])
        assert row[LAYOUT["restart_progress"]].tolist() == pytest.approx([0.5, 0.75, 1.0])
    masked = play([measured(**given, head_mask=head_mask(registers=False))])[0]
    assert torch.equal(masked, play([measured(head_mask=head_mask(registers=False))])[0])


@pytest.mark.parametrize("now", [NAN, INF])
def test_a_register_is_better_than_a_broken_run(now):
    stored = torch.tensor([1.0, NAN, INF])
    row = play([measured(eval_loss=now, register_loss=stored, register_filled=torch.ones(3, dtype=torch.bool))])[0]
    assert row[LAYOUT["restart_loss"]].tolist() == pytest.approx([-1, 0, 0])
    row = play([measured(register_loss=stored, register_filled=torch.ones(3, dtype=torch.bool))])[0]
    assert row[LAYOUT["restart_loss"]].tolist()[1:] == pytest.approx([1, 1])


def test_nothing_measured_is_not_the_same_as_something_broken():
    good = [torch.linspace(-1, 1, 13) * x for x in (1.0, 2.0, 1.5)]
    nothing = torch.full((13,), NAN)
    rows = play([measured(statistics=x) for x in (*good[:2], nothing, good[2])])
    assert not rows[2, LAYOUT["statistics_raw"]].any()
    assert (rows[2, LAYOUT["statistics_cdf"]] == 0.5).all()
    assert torch.equal(rows[3], play([measured(statistics=x) for x in (*good[:2], good[1], good[2])])[3])
    broken = good[1].clone()
    broken[2:5] = torch.tensor([NAN, INF, -INF])
    row = play([measured(statistics=x) for x in (good[0], broken)])[1]
    assert row[2:5].tolist() == [0.0, INPUT_LIMIT, -INPUT_LIMIT]
    assert all((cdf_columns(row, name) == 1).all() for name in STATISTICS[2:5])


@pytest.mark.parametrize("mask", MASKS)
def test_masked_heads_show_nothing_of_what_they_hold(mask):
    values, other = start_values(lr=1e-2), torch.full((8,), NAN, dtype=torch.float64)
    acting, action = MASKS[mask], torch.ones(9, dtype=torch.int64)
    plain = play([measured(values=values, action=action, head_mask=acting)])
    hidden = measured(
        values=torch.where(acting[1:], values, other),
        start=torch.where(acting[1:], start_values(), other),
        action=torch.where(acting, action, -1),
        head_mask=acting,
    )
    assert torch.equal(play([hidden]), plain)
    changes = plain[0, LAYOUT["action_features"]].tolist()
    assert changes == pytest.approx([math.log(10)] + [0.0] * 7)


def test_the_table_says_what_a_choice_means():
    action = torch.ones(9, dtype=torch.int64)
    wide, published = (play([measured(action=action)], table=TABLES[name])[0, LAYOUT["action_vector"]] for name in ("wide", "published"))
    assert torch.equal(play([measured(action=action)])[0, LAYOUT["action_vector"]], wide)
    assert (wide.sum(), published.sum()) == (5, 9)  # four knobs were kept


def test_features_end_at_the_box():
    low, high = start_values(clip_ratio=1e-10), start_values(clip_ratio=1 - 1e-10)
    row = play([measured(values=high, start=low, statistics=torch.full((13,), 36.8))])[0]
    assert column(row, "change_of_clip_ratio") == INPUT_LIMIT
    assert (row[LAYOUT["statistics_raw"]] == INPUT_LIMIT).all()


anything = st.one_of(st.floats(width=32), st.sampled_from([0.0, -0.0, 1e-45, 1e38, NAN, INF, -INF]))
share = st.floats(0, 1)


@st.composite
def any_decision(draw):
    def several(of, count):
        return torch.tensor(draw(st.lists(of, min_size=count, max_size=count)))

    return measured(
        statistics=several(anything, 13),
        train_loss=draw(anything),
        eval_loss=draw(anything),
        has_eval=draw(st.booleans()),
        update_norm=abs(draw(anything)),
        param_norm=abs(draw(anything)),
        progress=draw(share),
        values=several(share, 8),
        start=several(share, 8),
        action=torch.stack([torch.tensor(draw(st.integers(-1, n - 1))) for n in TABLES["wide"].nvec]),
        head_mask=several(st.booleans(), 9),
        register_loss=several(anything, 3),
        register_filled=several(st.booleans(), 3),
        register_progress=several(share, 3),
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(any_decision(), min_size=1, max_size=5))
def test_whatever_is_measured_the_inputs_are_finite_and_in_their_boxes(decisions):
    rows = play(decisions)  # checks finiteness and boxes
    assert ((rows[:, CDFS] >= 0) & (rows[:, CDFS] <= 1)).all()
    shown = range(INPUTS)[LAYOUT["action_vector"]]
    flags = rows[:, [i for i, name in enumerate(NAMES) if name.endswith(("_is_nan", "_is_inf")) or i in shown]]
    assert ((flags == 0) | (flags == 1)).all()
