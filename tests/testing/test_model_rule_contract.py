"""A sound rule that sees all tensors keeps the contract, and one that breaks a clause is told which."""

from typing import Any

import pytest
import torch

from metaopt.testing import MODEL_RULE_CLAUSES, UPDATE_RULE_CLAUSES, ContractError, check_model_rule
from tests.learners.model_rules import Toy


@pytest.mark.parametrize("rule", [Toy(), Toy(read_loss=False), Toy(read_horizon=False)])
def test_a_sound_rule_keeps_every_clause(rule: Toy) -> None:
    assert check_model_rule(rule) == tuple(MODEL_RULE_CLAUSES)


class Changed(Toy):
    """Toy, with `change` of the directions and the state."""

    def change(self, directions: Any, state: Any, arguments: Any) -> Any:
        return directions, state

    def update(self, theta: Any, params: Any, grads: Any, state: Any, t: Any, loss: Any, horizon: Any) -> Any:
        found = super().update(theta, params, grads, state, t, loss, horizon)
        return self.change(*found, (theta, params, grads, state))


class Loose:
    name, hyperparameters, needs_loss, needs_horizon = "loose", {"lr": 0.1}, False, False


class Deceptive(Toy):
    def __hash__(self) -> int:
        return id(self)


class Forgetful(Toy):
    def init_theta(self, seed: int) -> Any:
        return {**super().init_theta(seed), "noise": torch.rand(1)}


class Flat(Changed):
    def change(self, directions: Any, state: Any, arguments: Any) -> Any:
        return {name: value.reshape(-1) for name, value in directions.items()}, state


class Partial(Changed):
    def change(self, directions: Any, state: Any, arguments: Any) -> Any:
        return {**directions, "more": directions["scalar"]}, state


class Grows(Changed):
    def change(self, directions: Any, state: Any, arguments: Any) -> Any:
        return directions, {**state, "shared": {**state["shared"], "count": torch.ones(())}}


class Alphabetical(Changed):
    def change(self, directions: Any, state: Any, arguments: Any) -> Any:
        return {name: place * directions[name] for place, name in enumerate(sorted(directions))}, state


class Ordered(Changed):
    def change(self, directions: Any, state: Any, arguments: Any) -> Any:
        return {name: place * value for place, (name, value) in enumerate(directions.items())}, state


class Ranked(Changed):
    def change(self, directions: Any, state: Any, arguments: Any) -> Any:
        return {name: (1 + value.dim()) * value for name, value in directions.items()}, state


class Clannish(Toy):
    """A tensor begins with how many there are."""

    def init_state(self, theta: Any, params: Any) -> Any:
        state = super().init_state(theta, params)
        return {**state, "tensors": {name: {"m": each["m"] + len(params)} for name, each in state["tensors"].items()}}


class Owned(Toy):
    """What is shared begins with the sum of the weights."""

    def init_state(self, theta: Any, params: Any) -> Any:
        state = super().init_state(theta, params)
        return {**state, "shared": {**state["shared"], "mean": sum(param.sum() for param in params.values())}}


class InPlace(Changed):
    def change(self, directions: Any, state: Any, arguments: Any) -> Any:
        arguments[2]["bias"].mul_(2.0)
        return directions, state


class Random(Changed):
    def change(self, directions: Any, state: Any, arguments: Any) -> Any:
        return {name: value + 1e-9 + torch.rand(()) for name, value in directions.items()}, state


class Branching(Changed):
    def change(self, directions: Any, state: Any, arguments: Any) -> Any:
        return ({name: 2 * value for name, value in directions.items()} if float(directions["scalar"]) > 0 else directions), state


class Kinked(Changed):
    """The root of a second moment without an epsilon inside has no derivative at zero."""

    def change(self, directions: Any, state: Any, arguments: Any) -> Any:
        gain = arguments[0]["log_gain"]
        return {name: value + torch.sqrt((gain * arguments[2][name]).square()) for name, value in directions.items()}, state


BROKEN = [
    (Loose, "options"),
    (Deceptive, "options"),
    (Forgetful, "initial_theta"),
    (Flat, "ranks"),
    (Partial, "ranks"),
    (Grows, "ranks"),
    (Alphabetical, "names"),
    (Ordered, "names"),
    (Ranked, "scalars"),
    (Clannish, "joining"),
    (Owned, "joining"),
    (InPlace, "pure"),
    (Random, "pure"),
    (Branching, "batched"),
    (Kinked, "differentiable"),
]


@pytest.mark.parametrize(("rule", "clause"), BROKEN)
def test_a_broken_clause_is_named(rule: Any, clause: str) -> None:
    with pytest.raises(ContractError, match=f"^{clause}: "):
        check_model_rule(rule(), only=[clause])


def test_a_rule_may_begin_with_an_entry_of_theta() -> None:
    class Learned(Toy):
        def init_state(self, theta: Any, params: Any) -> Any:
            state = super().init_state(theta, params)
            return {**state, "shared": {**state["shared"], "mean": theta["fall"]}}

    check_model_rule(Learned(), only=["drop_in", "joining"])


def test_what_both_kinds_of_rules_promise_is_said_in_the_same_words() -> None:
    both = [name for name in ("static", "options", "initial_theta", "pure", "zero_lr") if name in UPDATE_RULE_CLAUSES]
    assert set(both) <= set(MODEL_RULE_CLAUSES)
    assert all(MODEL_RULE_CLAUSES[name] == UPDATE_RULE_CLAUSES[name] for name in ("static", "options", "initial_theta"))
