"""The parts of `PolicyScheduler` that know no policy: knobs of optimizers, registers, guard rails."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

from metaopt.errors import ConfigError
from metaopt.learners.policies.knobs import KNOB_SPECS, KNOBS, REGISTER_ACTIONS, start_values
from metaopt.learners.policies.starts import inner_start
from metaopt.optim import HypergradientSGD, LearnedOptimizer, UnitlessAdam
from metaopt.optim.policy_scheduler_guard import Handover, rate_limits
from metaopt.optim.policy_scheduler_knobs import Coordinates, frozen_steps, initial_knobs, knows_highest_rate, read_knobs, write_knobs
from metaopt.optim.policy_scheduler_registers import SLOTS, Registers

OPTIM = torch.optim
REST2, REST1 = 1.0 - 0.99, 1.0 - 0.8


def params(count: int = 1) -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2)) for _ in range(count)]


HAVE: dict[str, tuple[Any, dict[str, float]]] = {
    "AdamW": (
        lambda p: OPTIM.AdamW(p, lr=0.2, betas=(0.8, 0.99), eps=1e-7, weight_decay=0.3),
        {"lr": 0.2, "weight_decay": 0.3, "epsilon": 1e-7, "one_minus_beta2": REST2, "one_minus_beta1": REST1},
    ),
    "Adam without decay": (
        lambda p: OPTIM.Adam(p, betas=(0.8, 0.99)),
        {"lr": 1e-3, "epsilon": 1e-8, "one_minus_beta2": REST2, "one_minus_beta1": REST1},
    ),
    "betas out of bounds": (lambda p: OPTIM.Adam(p, betas=(0.8, 0.5)), {"lr": 1e-3, "epsilon": 1e-8, "one_minus_beta1": REST1}),
    "RMSprop": (lambda p: OPTIM.RMSprop(p, momentum=0.9), {"lr": 0.01, "epsilon": 1e-8, "one_minus_beta2": REST2}),
    "SGD": (lambda p: OPTIM.SGD(p, lr=30.0, momentum=0.9, weight_decay=5.0), {"lr": 30.0, "weight_decay": 5.0}),
    "Adafactor": (lambda p: OPTIM.Adafactor(p), {"lr": 0.01}),
    "tensor rate": (lambda p: OPTIM.SGD(p, lr=torch.tensor(0.5)), {"lr": 0.5}),
    "LearnedOptimizer": (lambda p: LearnedOptimizer(p, "celo2-base"), {"lr": 1.0}),
    "UnitlessAdam": (
        lambda p: UnitlessAdam(p),
        {**dict(zip(KNOBS, start_values().tolist(), strict=True)), "one_minus_beta2": REST2, "one_minus_beta1": 1.0 - 0.9},
    ),
}


@pytest.mark.parametrize("name", HAVE)
def test_an_optimizer_has_the_knobs_that_it_has(name: str) -> None:
    make, expected = HAVE[name]
    assert initial_knobs(make(params())) == expected


def test_groups_that_disagree_have_no_such_knob() -> None:
    groups = [{"params": params(), "betas": (0.5, 0.99)}, {"params": params(), "betas": (0.8, 0.99), "eps": 1e-5, "lr": 0.0}]
    found = initial_knobs(OPTIM.AdamW(groups, lr=0.1))
    assert found == {"lr": 0.1, "weight_decay": 0.01, "epsilon": 1e-8, "one_minus_beta2": REST2}


def test_an_optimizer_without_a_rate_is_refused() -> None:
    with pytest.raises(ConfigError, match="optimizer SGD has no learning rate above 0 to set; build it with one"):
        initial_knobs(OPTIM.SGD(params(), lr=0.0))

    class Rateless(OPTIM.Optimizer):
        pass

    with pytest.raises(ConfigError, match="optimizer Rateless has no learning rate above 0"):
        initial_knobs(Rateless(params(), {}))


@pytest.mark.parametrize("name", HAVE)
def test_what_is_written_is_read_again(name: str) -> None:
    optimizer = HAVE[name][0](params())
    start = initial_knobs(optimizer)
    wanted = {one: value * (0.5 if one in ("lr", "clip_ratio") else 1.25) for one, value in start.items()}
    write_knobs(optimizer, wanted, start, {})
    assert read_knobs(optimizer, start) == pytest.approx(wanted, rel=1e-12)


def test_groups_keep_their_proportions_also_later_ones() -> None:
    groups = [{"params": params(), "lr": 0.0}, {"params": params(), "lr": 0.2}, {"params": params(), "lr": 0.1, "weight_decay": 0.0}]
    optimizer = OPTIM.AdamW(groups, weight_decay=0.4)
    start, shares = initial_knobs(optimizer), dict[str, list[float]]()
    write_knobs(optimizer, {}, start, shares)
    assert shares["lr"] == [0.0, 1.0, 0.5], "noted before anything is written"
    write_knobs(optimizer, {"lr": 0.02, "weight_decay": 0.8}, start, shares)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.0, 0.02, 0.01])
    assert [group["weight_decay"] for group in optimizer.param_groups] == pytest.approx([0.8, 0.8, 0.0])
    optimizer.add_param_group({"params": params(), "lr": 0.4})
    write_knobs(optimizer, {"lr": 0.04}, start, shares)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.0, 0.04, 0.02, 0.08])


def test_a_rate_that_is_a_tensor_is_written_in_place() -> None:
    optimizer = OPTIM.AdamW(params(), lr=torch.tensor(0.5))
    rate, start = optimizer.param_groups[0]["lr"], initial_knobs(optimizer)
    write_knobs(optimizer, {"lr": 0.25}, start, {})
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == 0.25


def test_a_policy_sees_rates_where_training_began_them() -> None:
    optimizer = HAVE["SGD"][0](params())
    units = Coordinates(optimizer, initial_knobs(optimizer))
    policy = units.to_policy({"lr": 15.0, "weight_decay": 5.0})
    assert policy[:2].tolist() == [5e-4, 1e-2]
    assert policy[2:].tolist() == inner_start("adamw")[2:].tolist(), "what the optimizer lacks is where training began"
    assert units.from_policy(policy) == {"lr": 15.0, "weight_decay": 5.0}
    own = UnitlessAdam(params(), lr=0.3)
    assert Coordinates(own, initial_knobs(own)).to_policy(initial_knobs(own)).tolist() == pytest.approx(
        inner_start("unitless_adam").tolist()
    )


@pytest.mark.parametrize("name", HAVE)
def test_the_start_keeps_its_bits(name: str) -> None:
    optimizer = HAVE[name][0](params())
    start = initial_knobs(optimizer)
    units = Coordinates(optimizer, start)
    assert units.from_policy(units.to_policy(start)) == start


def test_units_of_two_to_the_j_stay_exact() -> None:
    for exponent in (-20, 20):
        optimizers = [OPTIM.Adam(params(), eps=1e-8 * scale, betas=(0.9, 0.5)) for scale in (1.0, 2.0**exponent)]
        plain, scaled = (Coordinates(optimizer, initial_knobs(optimizer)) for optimizer in optimizers)
        policy = plain.to_policy(plain.start) * 0.7
        one, other = (units.from_policy(policy) for units in (plain, scaled))
        assert other == {**one, "epsilon": one["epsilon"] * 2.0**exponent}


def test_a_highest_rate_is_for_steps_without_units() -> None:
    known = {name for name in HAVE if knows_highest_rate(HAVE[name][0](params()))}
    assert known == {"AdamW", "Adam without decay", "betas out of bounds", "RMSprop", "UnitlessAdam"}


def test_what_learns_its_rate_is_refused_and_what_it_learns_else_is_left_to_it() -> None:
    with pytest.raises(ConfigError, match="HypergradientSGD learns lr itself; give PolicyScheduler a torch optimizer"):
        initial_knobs(HypergradientSGD(params(), lr=0.1))
    assert initial_knobs(HypergradientSGD(params(), lr=0.1, weight_decay=0.1, learn=["weight_decay"])) == {"lr": 0.1}


def test_betas_are_frozen_while_closed_form_corrections_matter() -> None:
    assert frozen_steps(OPTIM.AdamW(params(), betas=(0.9, 0.99))) == 300
    assert frozen_steps(OPTIM.NAdam([{"params": params()}, {"params": params(), "betas": (0.9, 0.9)}])) == 3000
    assert frozen_steps(OPTIM.Adam(params(), betas=(0.9, 0.0))) == 3
    assert all(frozen_steps(make(params())) == 0 for make in (UnitlessAdam, OPTIM.RMSprop, OPTIM.SGD))


class Places:
    """A run that is a number, and what callbacks were asked for."""

    def __init__(self) -> None:
        self.run, self.slots, self.registers = 0, dict[int, int](), Registers()

    def save(self, slot: int) -> None:
        assert 0 <= slot < SLOTS
        self.slots[slot] = self.run

    def load(self, slot: int) -> None:
        self.run = self.slots[slot]

    def act(self, name: str, loss: float = 1.0, progress: float = 0.5) -> bool:
        return self.registers.act(REGISTER_ACTIONS.index(name), loss, progress, self.save, self.load)


def test_registers_follow_a_plain_model_of_them() -> None:
    """Every sequence of three actions, against registers that hold values."""
    for names in itertools.product(REGISTER_ACTIONS[:8], repeat=3):
        places, run, held = Places(), 0, [None] * 3
        for step, name in enumerate(("save0", *names)):
            places.run = run = step + 10
            replaced = places.act(name, loss=float(run), progress=step / 10)
            register = int(name[-1]) if name != "none" else 0
            before = held[register]
            if name[:4] in ("save", "swap"):
                held[register] = run
            if name[:4] in ("load", "swap") and before is not None:
                run = before
            assert replaced == (name[:4] in ("load", "swap") and before is not None)
            assert places.run == run
        for register, value in enumerate(held):
            known = places.registers
            assert known.filled[register] == (value is not None)
            if value is not None:
                assert (places.slots[known.slot[register]], known.loss[register]) == (value, float(value))


def test_the_best_register_has_the_least_finite_loss() -> None:
    places = Places()
    assert places.registers.best() is None
    for name, loss in (("save0", math.nan), ("save1", 3.0), ("save2", 2.0)):
        places.act(name, loss)
        assert places.registers.best() == {"save0": None, "save1": 1, "save2": 2}[name]


def test_rates_stay_near_their_start_and_below_the_policys_highest() -> None:
    spec = KNOB_SPECS[0]
    assert rate_limits(True, 0.1, None) == (pytest.approx(1e-6), pytest.approx(0.1))
    assert rate_limits((0.5, 2.0), 7.0, None) == (pytest.approx(5e-4), pytest.approx(2e-3))
    assert rate_limits(False, 0.1, None) == (spec.low, spec.high)
    assert rate_limits(True, 1e-3, 0.03)[1] == pytest.approx(0.03), "30 times the start"
    assert rate_limits(True, 0.3, 0.03)[1] == spec.start, "a start above it is the highest itself"
    assert rate_limits(False, 1e-3, 0.03)[1] == pytest.approx(0.03), "the policy's own limit is no guard"


@pytest.mark.parametrize("bad", [(2.0, 3.0), (0.1, 0.5), (0.0, 2.0), (0.1, math.inf), (0.1,), (math.nan, 2.0)])
def test_a_range_of_rates_has_the_start_in_it(bad: Any) -> None:
    with pytest.raises(ConfigError, match="guard must be True, False or two factors of the start"):
        rate_limits(bad, 0.1, None)


def test_the_cosine_falls_from_where_it_takes_over_to_zero() -> None:
    cosine = Handover(step=20, lr=0.4)
    assert [cosine.rate(step, 100) for step in (20, 60, 100, 120)] == pytest.approx([0.4, 0.2, 0.0, 0.0])
    assert Handover(100, 0.4).rate(101, 100) == pytest.approx(0.0)
