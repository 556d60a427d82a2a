"""Saving and resuming a `LearnedOptimizer`: exact, checked, and open to the user's own hooks."""

import copy
import io
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from metaopt.artifacts import Artifact, new_card
from metaopt.errors import IncompatibleCheckpointError
from metaopt.learners.update_rules import get_rule
from metaopt.optim import LearnedOptimizer


def make(total_steps: int | None = 20, rule: str = "celo2_base", dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> LearnedOptimizer:
    params = [nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(7)).to(dtype)) for shape in ((3, 4), (4,))]
    schedule = {"warmup_frac": 0.1, "final_frac": 0.0}
    theta = get_rule(rule, **({"start": "random"} if seed else {})).init_theta(seed)
    return LearnedOptimizer(params, Artifact(new_card("one", rule, step={"default_schedule": schedule}), theta), total_steps=total_steps)


def walk(optimizer: LearnedOptimizer, steps: range) -> None:
    for step in steps:
        for param in optimizer.param_groups[0]["params"]:
            param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(step)).to(param.dtype)
        optimizer.step()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_resume_is_bitwise_and_keeps_dtypes(dtype: torch.dtype) -> None:
    whole, resumed = make(dtype=dtype), make(dtype=dtype)
    walk(whole, range(4))
    with torch.no_grad():
        for mine, theirs in zip(resumed.param_groups[0]["params"], whole.param_groups[0]["params"], strict=True):
            mine.copy_(theirs)
    resumed.load_state_dict(through_a_file(whole.state_dict()))
    walk(whole, range(4, 8))
    walk(resumed, range(4, 8))
    for mine, theirs in zip(resumed.param_groups[0]["params"], whole.param_groups[0]["params"], strict=True):
        assert torch.equal(mine, theirs)
        assert {key: value.dtype for key, value in resumed.state[mine].items()} == {k: v.dtype for k, v in whole.state[theirs].items()}
    assert resumed.param_groups[0]["elapsed_steps"] == 8, "the schedule goes on where it was"


def test_loading_copies_and_does_not_share() -> None:
    first, second = make(), make()
    walk(first, range(2))
    state = first.state_dict()
    kept = copy.deepcopy(state)
    second.load_state_dict(state)
    walk(second, range(2, 4))
    for index, tensors in kept["state"].items():
        assert all(torch.equal(value, state["state"][index][key]) for key, value in tensors.items())


def test_another_run_length_is_refused_before_anything_changes() -> None:
    first, second = make(total_steps=20), make(total_steps=30)
    walk(first, range(2))
    with pytest.raises(
        IncompatibleCheckpointError, match=r"state_dict has total_steps 20, the optimizer 30; build it with that, then set_total"
    ):
        second.load_state_dict(first.state_dict())
    assert not second.state
    extended = make(total_steps=20)
    extended.load_state_dict(first.state_dict())
    extended.set_total_steps(30)
    assert extended.state_dict()["param_groups"][0]["total_steps"] == 30


@pytest.mark.parametrize("other", [{"rule": "mlp"}, {"seed": 1}])
def test_another_artifact_is_refused(other: dict[str, Any]) -> None:
    first = make()
    walk(first, range(1))
    with pytest.raises(IncompatibleCheckpointError, match=r"state_dict has artifact 'one@[0-9a-f]{16}', the optimizer 'one@"):
        make(**other).load_state_dict(first.state_dict())


def test_a_state_dict_of_torch_optim_is_refused() -> None:
    optimizer = make()
    with pytest.raises(IncompatibleCheckpointError, match="state_dict has artifact None"):
        optimizer.load_state_dict(torch.optim.AdamW(optimizer.param_groups[0]["params"]).state_dict())


def test_hooks_of_the_user_see_and_change_what_is_loaded() -> None:
    first, second = make(), make()
    walk(first, range(2))

    def clear(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        zeroed = {i: {k: torch.zeros_like(v) if k == "m" else v for k, v in tensors.items()} for i, tensors in state["state"].items()}
        return {**state, "state": zeroed}

    seen: list[torch.dtype] = []
    second.register_load_state_dict_pre_hook(clear)
    second.register_load_state_dict_post_hook(lambda o: seen.extend(state["m"].dtype for state in o.state.values()))
    second.load_state_dict(first.state_dict())
    assert seen == [torch.float32] * 2, "restored before the user's hook"
    assert not any(state["m"].any() for state in second.state.values())
    assert len(second._optimizer_load_state_dict_pre_hooks) == 1, "its own hooks are gone"


def test_the_first_step_of_torchs_distributed_loader() -> None:
    """`torch.distributed.checkpoint` makes the state by one step with zero gradients and lr=0, then loads over it."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    def model_and_optimizer() -> tuple[nn.Module, LearnedOptimizer]:
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        return model, LearnedOptimizer(model.parameters(), get_rule("celo2_base"), weight_decay=0.1)

    def train(model: nn.Module, optimizer: LearnedOptimizer, steps: int) -> None:
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
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert int(second.state[again.weight]["step"]) == 5  # type: ignore[index]
