"""Saving, resuming and copying hypergradient optimizers: bitwise, checked, with torch's own machinery."""

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from metaopt import optim
from metaopt.errors import IncompatibleCheckpointError
from metaopt.optim import HypergradientAdam, HypergradientAdamW, HypergradientLion, HypergradientRMSProp, HypergradientSGD

SHAPES = ((3, 4), (5,), ())
Make = Callable[..., torch.optim.Optimizer]
SETTINGS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {  # class, its arguments, and others that a fresh one may be built with
    "sgd": (HypergradientSGD, {"lr": 0.05}, {"lr": 0.3}),
    "momentum": (HypergradientSGD, {"lr": 0.05, "momentum": 0.9, "learn": ("lr", "momentum")}, {"lr": 0.1, "momentum": 0.5}),
    "adam": (HypergradientAdam, {"learn": ("lr", "beta1", "eps"), "eps": 1e-4}, {"lr": 1.0, "betas": (0.5, 0.5), "eps": 1.0}),
    "adamw": (HypergradientAdamW, {"mode": "per_tensor", "weight_decay": 0.1}, {"lr": 0.5, "weight_decay": 0.0}),
    "rmsprop": (HypergradientRMSProp, {"mode": "per_group", "momentum": 0.9}, {"lr": 0.1, "alpha": 0.5, "momentum": 0.1}),
    "lion": (HypergradientLion, {"update": "cosine", "link": "square"}, {"lr": 0.1}),
    "tower": (HypergradientSGD, {"hyper": [{"name": "adam", "lr": 1e-3, "beta1": 0.5}, "momentum", "sign"]}, {"bounds": (1e-3, 10.0)}),
}


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(i)).to(dtype)) for i, shape in enumerate(SHAPES)]


def make(name: str, params: list[nn.Parameter], **other: Any) -> torch.optim.Optimizer:
    kind, options, _ = SETTINGS[name]
    optimizer: torch.optim.Optimizer = kind([{"params": params[:2]}, {"params": params[2:]}], **{**options, **other})
    return optimizer


def members(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def walk(optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for place, param in enumerate(members(optimizer)):
            param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(100 * step + place)).to(param.dtype) + 0.2
        optimizer.step()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def same(left: Any, right: Any) -> None:
    assert all(torch.equal(a, b) for a, b in zip(members(left), members(right), strict=True))
    assert left.hyperparameters() == right.hyperparameters()
    assert left.tower_rates() == right.tower_rates()
    assert left.skipped == right.skipped
    towers = (one.param_groups[0]["tower_state"] for one in (left, right))
    first, second = towers
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) and value.dtype == second[key].dtype == torch.float64 for key, value in first.items())
    for a, b in zip(members(left), members(right), strict=True):
        assert left.state[a].keys() == right.state[b].keys()
        for key, value in left.state[a].items():
            other = right.state[b][key]
            assert torch.equal(value, other) and value.dtype == other.dtype if isinstance(value, torch.Tensor) else value == other


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("fresh", ["as it was built", "built with other numbers"])
@pytest.mark.parametrize("name", SETTINGS)
def test_resume_is_bitwise(name: str, fresh: str, dtype: torch.dtype) -> None:
    whole = make(name, parameters(dtype))
    walk(whole, range(4))
    resumed = make(name, parameters(dtype), **(SETTINGS[name][2] if "other" in fresh else {}))
    with torch.no_grad():
        for mine, theirs in zip(members(resumed), members(whole), strict=True):
            mine.copy_(theirs)
    resumed.load_state_dict(through_a_file(whole.state_dict()))
    same(whole, resumed)
    walk(whole, range(4, 8))
    walk(resumed, range(4, 8))
    same(whole, resumed)
    for group, other in zip(whole.param_groups, resumed.param_groups, strict=True):
        assert {k: v for k, v in group.items() if k not in ("params", "tower_state")} == {
            k: v for k, v in other.items() if k not in ("params", "tower_state")
        }


@pytest.mark.parametrize("name", SETTINGS)
def test_copies_and_pickles_go_on_alone_and_alike(name: str) -> None:
    optimizer = make(name, parameters())
    walk(optimizer, range(3))
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):  # noqa: S301
        before = [param.detach().clone() for param in members(optimizer)]
        walk(twin, range(3, 5))
        assert all(torch.equal(a, b) for a, b in zip(before, members(optimizer), strict=True))
        reference = copy.deepcopy(optimizer)
        walk(reference, range(3, 5))
        same(twin, reference)


def test_a_state_dict_stays_what_it_was() -> None:
    optimizer = make("tower", parameters())
    walk(optimizer, range(3))
    state = optimizer.state_dict()
    kept = copy.deepcopy(state["param_groups"])
    walk(optimizer, range(3, 6))
    assert all(torch.equal(value, state["param_groups"][0]["tower_state"][key]) for key, value in kept[0]["tower_state"].items())
    other = make("tower", parameters())
    other.load_state_dict(state)
    walk(other, range(6, 8))
    assert all(torch.equal(value, state["param_groups"][0]["tower_state"][key]) for key, value in kept[0]["tower_state"].items())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"hyper": ["sgd", "sgd"]}, "state_dict has a tower with hyper 'sgd', the optimizer 'sgd / sgd'; build it with that$"),
        ({"hyper": "adam"}, "state_dict has a tower with hyper 'sgd', the optimizer 'adam'"),
        ({"learn": ("lr", "weight_decay"), "weight_decay": 0.1}, r"learn \['lr'\], the optimizer \['lr', 'weight_decay'\]"),
        ({"mode": "per_tensor"}, "mode 'global', the optimizer 'per_tensor'"),
        ({"link": "square"}, "link 'log', the optimizer 'square'"),
        ({"update": "cosine"}, "update 'additive', the optimizer 'cosine'"),
    ],
)
def test_another_tower_is_refused_before_anything_changes(other: dict[str, Any], message: str) -> None:
    first, second = make("sgd", parameters()), make("sgd", parameters(), **other)
    walk(first, range(2))
    with pytest.raises(IncompatibleCheckpointError, match=message) as caught:
        second.load_state_dict(first.state_dict())
    assert "\n" not in str(caught.value)
    assert not second.state
    assert second.param_groups[0]["lr"] == 0.05


def test_checkpoints_of_other_optimizers_are_refused() -> None:
    params = parameters()
    with pytest.raises(IncompatibleCheckpointError, match="no hypergradient tower; it was saved by another kind of optimizer"):
        HypergradientSGD(params).load_state_dict(torch.optim.SGD(params).state_dict())
    with pytest.raises(IncompatibleCheckpointError, match="optimizer 'adam', the optimizer 'adamw'"):
        HypergradientAdamW(params).load_state_dict(HypergradientAdam(params).state_dict())


def test_the_watch_is_in_the_checkpoint() -> None:
    def settled() -> Any:
        return HypergradientSGD([nn.Parameter(torch.zeros(64))], 0.3, hyper={"name": "sgd", "lr": 0.0}, update="cosine")

    def run(optimizer: Any, steps: range) -> int:
        (param,) = members(optimizer)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step in steps:
                param.grad = param.detach() + torch.randn(64, generator=torch.Generator().manual_seed(step))
                optimizer.step()
        return len(caught)

    whole, cut = settled(), settled()
    assert run(cut, range(60)) == 0
    again = settled()
    again.param_groups[0]["params"][0].data.copy_(members(cut)[0])
    again.load_state_dict(through_a_file(cut.state_dict()))
    assert run(whole, range(400)) == run(again, range(60, 400)) == 1
    assert whole.stationarity.state_dict() == again.stationarity.state_dict()
    late = copy.deepcopy(again)
    assert run(late, range(400, 600)) == 0, "it has been said"


def test_counts_of_non_finite_gradients_travel_with_copies() -> None:
    optimizer = make("sgd", parameters())
    walk(optimizer, range(1))
    members(optimizer)[0].grad = torch.full((3, 4), torch.nan)
    with pytest.warns(UserWarning, match="at step 2"):
        optimizer.step()
    twin: Any = copy.deepcopy(optimizer)
    assert (twin.nonfinite_gradients, twin.skipped) == (1, 1)
    members(twin)[0].grad = torch.full((3, 4), torch.nan)
    twin.step()


def test_hooks_of_the_user_see_and_change_what_is_loaded() -> None:
    first, second = make("adam", parameters(torch.bfloat16)), make("adam", parameters(torch.bfloat16))
    walk(first, range(2))

    def clear(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        zeroed = {i: {k: torch.zeros_like(v) if k == "exp_avg" else v for k, v in own.items()} for i, own in state["state"].items()}
        return {**state, "state": zeroed}

    seen: list[torch.dtype] = []
    second.register_load_state_dict_pre_hook(clear)
    second.register_load_state_dict_post_hook(lambda o: seen.extend(state["exp_avg"].dtype for state in o.state.values()))
    second.load_state_dict(first.state_dict())
    assert seen == [torch.float32] * 3, "restored before the user's hook"
    assert not any(state["exp_avg"].any() for state in second.state.values())


@pytest.mark.parametrize("name", ["HypergradientSGD", "HypergradientAdamW"])
def test_torchs_distributed_loader(name: str) -> None:
    """`torch.distributed.checkpoint` makes the state by one step with zero gradients and lr=0, then loads over it."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    def model_and_optimizer() -> tuple[nn.Module, Any]:
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        return model, getattr(optim, name)(model.parameters(), hyper=["adam", "sgd"])

    def train(model: nn.Module, optimizer: Any, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()

    model, optimizer = model_and_optimizer()
    train(model, optimizer, 3)
    saved = copy.deepcopy((model.state_dict(), get_optimizer_state_dict(model, optimizer)))
    train(model, optimizer, 2)
    again, second = model_and_optimizer()
    again.load_state_dict(saved[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        set_optimizer_state_dict(again, second, saved[1])
    train(again, second, 2)
    same(optimizer, second)
