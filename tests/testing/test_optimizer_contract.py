"""Sound optimizers pass the contract; for each clause, an optimizer that breaks it is caught by that clause."""

import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.learners.update_rules import RULES, get_rule
from metaopt.optim import LearnedOptimizer
from metaopt.testing import OPTIMIZER_CLAUSES, ContractError, check_optimizer_contract

# `step` without torch's hook wrapper, so that a subclass may call it without calling hooks twice.
sound_step = torch.no_grad()(inspect.unwrap(LearnedOptimizer.step))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_keeps_every_clause(rule: str) -> None:
    assert check_optimizer_contract(lambda params: LearnedOptimizer(params, get_rule(rule))) == tuple(OPTIMIZER_CLAUSES)


def test_random_weights_keep_the_contract() -> None:
    check_optimizer_contract(lambda params: LearnedOptimizer(params, get_rule("celo2_base", start="random")))


@pytest.mark.parametrize(
    ("make", "lacks"),
    [
        (torch.optim.AdamW, {"loss_keyword", "state_dtypes", "small_steps"}),
        (lambda params: torch.optim.AdamW(params, foreach=False), {"loss_keyword", "state_dtypes", "small_steps"}),
        (lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9), {"loss_keyword", "state_dtypes", "small_steps", "step_counter"}),
    ],
)
def test_torch_optimizers_keep_what_they_can(make: Callable[..., torch.optim.Optimizer], lacks: set[str]) -> None:
    assert set(check_optimizer_contract(make, skip=lacks)) == set(OPTIMIZER_CLAUSES) - lacks
    for clause in lacks:
        with pytest.raises(ContractError, match=f"^{clause}: "):
            check_optimizer_contract(make, only=[clause])


def test_unknown_clauses_are_named() -> None:
    with pytest.raises(ConfigError, match="clause 'zero_lrs' does not exist; there are torch_optimizer, "):
        check_optimizer_contract(torch.optim.AdamW, skip=["zero_lrs"])


def test_the_error_says_clause_sentence_and_observation() -> None:
    with pytest.raises(ContractError) as caught:
        check_optimizer_contract(torch.optim.AdamW, only=["small_steps"])
    assert caught.value.clause == "small_steps"
    assert OPTIMIZER_CLAUSES["small_steps"] in str(caught.value)
    assert "moved 0 where float32 moved 0.02" in caught.value.observed


class Broken(LearnedOptimizer):
    """AdamW through the drop-in class; the subclasses break one clause each."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, get_rule("adamw"))

    def params(self) -> Iterable[Tensor]:
        return (param for group in self.param_groups for param in group["params"])


class NotAnOptimizer:
    def __init__(self, params: Any) -> None:
        self.param_groups: list[dict[str, Any]] = []


class SkipsScalars(Broken):
    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        for param in self.params():
            param.grad = None if param.dim() == 0 else param.grad
        return sound_step(self, closure, loss=loss)


class ScalesGradients(Broken):
    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        for param in self.params():
            if param.grad is not None and not param.grad.is_sparse:
                param.grad.mul_(0.5)
        return sound_step(self, closure, loss=loss)


class FailsOnEmpty(Broken):
    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        assert all(param.numel() for param in self.params())
        return sound_step(self, closure, loss=loss)


class RefusesNames(Broken):
    def __init__(self, params: Any) -> None:
        params = list(params)
        if isinstance(params[0], tuple):
            raise TypeError("no names, please")
        super().__init__(params)


def ignoring(key: str) -> type[Broken]:
    class Ignores(Broken):
        def step(self, closure: Any = None, *, loss: Any = None) -> Any:
            for group in self.param_groups:
                group[key] = self.defaults[key]
            return sound_step(self, closure, loss=loss)

    return Ignores


class TakesLossFirst(Broken):
    def step(self, loss: Any = None, closure: Any = None) -> Any:  # type: ignore[override]
        sound_step(self, closure)
        return loss


class NoLossKeyword(Broken):
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        return sound_step(self, closure)


class DecaysAtZeroRate(Broken):
    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        out = sound_step(self, closure, loss=loss)
        with torch.no_grad():
            for group in self.param_groups:
                for param in group["params"]:
                    param.mul_(1 - 1e-3 * group["weight_decay"])
        return out


class CountsTogether(Broken):
    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        out = sound_step(self, closure, loss=loss)
        for param in self.params():
            if param in self.state:
                self.state[param]["step"].fill_(self.param_groups[0]["elapsed_steps"])
        return out


class ForgetsState(Broken):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "state": {}}


class CastsState(Broken):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        torch.optim.Optimizer.load_state_dict(self, state_dict)


class NewGroupsAreOld(Broken):
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        if len(self.param_groups) > 1:
            for param in self.param_groups[-1]["params"]:
                self._init_state(param)["step"] += 100


class KeepsGradients(Broken):
    def zero_grad(self, set_to_none: bool = True) -> None:
        pass


class CopiesNothing(Broken):
    def __deepcopy__(self, memo: dict[int, Any]) -> "CopiesNothing":
        return self


class HoldsAFunction(Broken):
    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "later": lambda: None}


class CallsHooksTwice(Broken):
    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        for hook in self._optimizer_step_post_hooks.values():
            hook(self, (), {})
        return sound_step(self, closure, loss=loss)


class RemembersItsRate(Broken):
    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        rates = [group["lr"] for group in self.param_groups]
        self.first_rates = getattr(self, "first_rates", rates)
        for group, rate in zip(self.param_groups, self.first_rates, strict=False):
            group["lr"] = rate
        return sound_step(self, closure, loss=loss)


class UnscalesAlone(Broken):
    _step_supports_amp_scaling = True  # and then ignores what the scaler hands over


class RoundsEachStep(Broken):
    def _init_state(self, param: Tensor) -> dict[str, Tensor]:
        state = super()._init_state(param)
        state.pop("master", None)
        return state


class TurnsIntoFloat(Broken):
    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        out = sound_step(self, closure, loss=loss)
        for param in self.params():
            param.data = param.data.float()
            param.grad = None
        return out


class DecaysFrozen(Broken):
    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        out = sound_step(self, closure, loss=loss)
        with torch.no_grad():
            for param in self.params():
                param.sub_(1e-3 * param)
        return out


class ReplacesStorage(Broken):
    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        for param in self.params():
            param.data = param.data.clone()
        return sound_step(self, closure, loss=loss)


class DropsSparse(Broken):
    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        for param in self.params():
            param.grad = None if param.grad is not None and param.grad.is_sparse else param.grad
        return sound_step(self, closure, loss=loss)


class StopsAtNaN(Broken):
    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        if any(param.grad is not None and not param.grad.is_sparse and bool(param.grad.isnan().any()) for param in self.params()):
            return loss
        return sound_step(self, closure, loss=loss)


class AddsNoise(Broken):
    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        out = sound_step(self, closure, loss=loss)
        with torch.no_grad():
            for param in self.params():
                param.add_(1e-6 * torch.randn_like(param))
        return out


BROKEN: list[tuple[str, Any]] = [
    ("torch_optimizer", NotAnOptimizer),
    ("ranks", SkipsScalars),
    ("ranks", ScalesGradients),
    ("empty_tensors", FailsOnEmpty),
    ("named_parameters", RefusesNames),
    ("group_lr", ignoring("lr")),
    ("group_weight_decay", ignoring("weight_decay")),
    ("group_maximize", ignoring("maximize")),
    ("closure", TakesLossFirst),
    ("loss_keyword", NoLossKeyword),
    ("zero_lr", DecaysAtZeroRate),
    ("add_param_group", NewGroupsAreOld),
    ("zero_grad", KeepsGradients),
    ("step_hooks", CallsHooksTwice),
    ("scheduler", RemembersItsRate),
    ("frozen_and_unused", DecaysFrozen),
    ("tied_weights", ReplacesStorage),
    ("sparse_gradients", DropsSparse),
    ("non_finite_gradients", StopsAtNaN),
    ("deterministic", AddsNoise),
    ("step_counter", CountsTogether),
    ("resume", ForgetsState),
    ("state_dtypes", CastsState),
    ("deepcopy", CopiesNothing),
    ("serialisable", HoldsAFunction),
    ("grad_scaler", UnscalesAlone),
    ("low_precision", TurnsIntoFloat),
    ("small_steps", RoundsEachStep),
]


@pytest.mark.parametrize(("clause", "make"), BROKEN)
def test_a_broken_clause_is_caught_by_its_name(clause: str, make: Any) -> None:
    with pytest.raises(ContractError) as caught, warnings.catch_warnings():
        check_optimizer_contract(make, only=[clause])
    assert caught.value.clause == clause


def test_every_clause_has_an_optimizer_that_breaks_it() -> None:
    assert {clause for clause, _ in BROKEN} == set(OPTIMIZER_CLAUSES)
    assert check_optimizer_contract(Broken) == tuple(OPTIMIZER_CLAUSES), "the base of the broken ones is sound"
