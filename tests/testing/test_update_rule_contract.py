"""Every bundled rule keeps the contract, and a rule that breaks a clause is told which."""

from dataclasses import dataclass, field

import pytest
import torch

from metaopt.learners.update_rules import CLASSIC, RULES, get_rule
from metaopt.testing import UPDATE_RULE_CLAUSES, ContractError, check_update_rule


@pytest.mark.parametrize("name", list(RULES))
def test_bundled_rules_keep_every_clause(name: str) -> None:
    assert check_update_rule(get_rule(name)) == tuple(UPDATE_RULE_CLAUSES)
    if name not in CLASSIC:
        check_update_rule(get_rule(name, start="random"))


@dataclass(frozen=True)
class Good:
    name: str = "good"
    hyperparameters: dict[str, float] = field(default_factory=lambda: {"lr": 0.1, "gain": 2.0}, hash=False)

    def init_theta(self, seed):
        return {"a": torch.tensor([1.0])}

    def init_state(self, param):
        return {"m": torch.zeros_like(param)}

    def update(self, theta, param, grad, state, t):
        m = 0.9 * state["m"] + grad
        return theta["a"][0] * theta.get("gain", self.hyperparameters["gain"]) * m, {"m": m}


class Loose:
    """A rule like the others, but no dataclass."""

    name, hyperparameters = "loose", {"lr": 0.1}


class Deceptive(Good):
    """Its hash is not a function of its options."""

    def __hash__(self):
        return id(self)


class Together(Good):
    """Gives embeddings a state that its update does not know."""

    def init_embedding_state(self, param):
        return {"n": torch.zeros_like(param)}


class Forgetful(Good):
    def init_theta(self, seed):
        return {"a": torch.rand(1)}


class Flat(Good):
    def update(self, theta, param, grad, state, t):
        direction, state = super().update(theta, param, grad, state, t)
        return direction.reshape(-1), state


class Writing(Good):
    def update(self, theta, param, grad, state, t):
        state["m"].mul_(0.9).add_(grad)
        return theta["a"][0] * 2.0 * state["m"], {"m": state["m"].clone()}


class Alone(Good):
    """Behaves another way under vmap."""

    def update(self, theta, param, grad, state, t):
        direction, state = super().update(theta, param, grad, state, t)
        return direction * (2.0 if torch._C._functorch.is_batchedtensor(grad) else 1.0), state


class Stubborn(Good):
    def update(self, theta, param, grad, state, t):
        return super().update({**theta, "gain": 1.0} if "gain" in theta else theta, param, grad, state, t)


class Deaf(Good):
    def update(self, theta, param, grad, state, t):
        return super().update({"a": theta["a"]}, param, grad, state, t)


class Rooted(Good):
    def update(self, theta, param, grad, state, t):
        direction, state = super().update(theta, param, grad, state, t)
        return direction + (theta["a"][0] * grad.clamp(min=0.0)).sqrt(), state


@pytest.mark.parametrize(
    ("rule", "clause"),
    [
        (Loose(), "options"),
        (Deceptive(), "options"),
        (Together(), "drop_in"),
        (Forgetful(), "initial_theta"),
        (Flat(), "ranks"),
        (Writing(), "pure"),
        (Alone(), "batched"),
        (Stubborn(), "overrides"),
        (Deaf(), "overrides"),
        (Rooted(), "differentiable"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__class__.__name__,
)
def test_a_broken_clause_is_named(rule: Good, clause: str) -> None:
    assert check_update_rule(Good()) == tuple(UPDATE_RULE_CLAUSES)
    with pytest.raises(ContractError) as caught:
        check_update_rule(rule)
    assert caught.value.clause == clause


def test_clauses_can_be_chosen() -> None:
    assert check_update_rule(Flat(), only=["initial_theta", "static"]) == ("static", "initial_theta")
    assert "ranks" not in check_update_rule(Good(), skip=["ranks"])
