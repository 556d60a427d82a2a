"""`UnitlessAdam`: the drop-in contract, equality with the inner run's step, groups, precisions, checkpoints and errors."""

import copy
import io
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh

from metaopt.errors import ConfigError, IncompatibleCheckpointError
from metaopt.learners.policies import mean_statistics, tensor_statistics
from metaopt.learners.policies.unitless_adam import EPS_MODES, Hyperparameters, Parts, unitless_start, unitless_step
from metaopt.optim import UnitlessAdam, unitless_adam
from metaopt.testing import OPTIMIZER_CLAUSES, check_optimizer_contract

SHAPES = ((3, 4), (5,), (), (2, 3, 2), (4, 1), (3, 4))
KNOBS = {"lr": 0.02, "betas": (0.85, 0.97), "eps": 0.05, "weight_decay": 0.03, "clip_ratio": 0.7, "clip_decay": 0.1, "trust_decay": 0.3}


def draw(seed: int, dtype: torch.dtype = torch.float64, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype) for shape in shapes]


def leaves(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    return [nn.Parameter(value) for value in draw(seed, dtype)]


def walk(optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Take steps whose gradients depend on step and place, and shrink and grow so that some are clipped."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for step in steps:
        grads = draw(100 + step, shapes=tuple(tuple(param.shape) for param in params))
        for param, grad in zip(params, grads, strict=True):
            param.grad = ((2.0 if step % 3 == 0 else 0.3) * grad).to(param.dtype)
        optimizer.step()


def knobs(**changed: Any) -> Hyperparameters:
    h = KNOBS | changed
    beta1, beta2 = h.pop("betas")
    values = {"epsilon": h.pop("eps"), "one_minus_beta1": 1 - beta1, "one_minus_beta2": 1 - beta2, **h}
    return Hyperparameters(**{name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()})


@pytest.mark.parametrize("eps_mode", EPS_MODES)
def test_every_clause_of_the_contract(eps_mode: str) -> None:
    make = lambda params: UnitlessAdam(params, eps_mode=eps_mode, clip_ratio=1.0)  # noqa: E731
    assert check_optimizer_contract(make) == tuple(OPTIMIZER_CLAUSES)


def test_the_contract_with_clipping() -> None:
    """A group is clipped by one norm, so that a tensor with NaN, which drops out of it, does change the steps of the others."""
    check_optimizer_contract(UnitlessAdam, skip={"non_finite_gradients"})


@pytest.mark.parametrize("eps_mode", EPS_MODES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_both_engines_take_the_same_steps(dtype: torch.dtype, tolerance: float, eps_mode: str) -> None:
    """Three runs under vmap, and three optimizers; betas and rate change on the way."""
    runs = [leaves(seed, dtype) for seed in range(3)]
    optimizers = [UnitlessAdam(params, **KNOBS, eps_mode=eps_mode) for params in runs]
    stacked = {str(i): torch.stack([params[i].detach() for params in runs]) for i in range(len(SHAPES))}
    state = torch.func.vmap(unitless_start)(stacked)
    step = torch.func.vmap(lambda p, g, s, h: unitless_step(p, g, s, h, eps_mode), in_dims=(0, 0, 0, None))
    for t in range(12):
        changed = {"lr": 0.02 / (1 + t), "betas": (0.85, 0.97) if t < 6 else (0.99, 0.9)}
        grads = [[g / (1 + t % 3) for g in draw(10 * t + run, dtype)] for run in range(3)]
        for params, optimizer, own in zip(runs, optimizers, grads, strict=True):
            optimizer.param_groups[0].update(changed)
            for param, grad in zip(params, own, strict=True):
                param.grad = grad
            optimizer.step()
        named = {str(i): torch.stack([own[i] for own in grads]) for i in range(len(SHAPES))}
        stacked, state, _ = step(stacked, named, state, knobs(**changed))
    for run, (params, optimizer) in enumerate(zip(runs, optimizers, strict=True)):
        for i, param in enumerate(params):
            torch.testing.assert_close(param.detach(), stacked[str(i)][run], rtol=10 * tolerance, atol=tolerance)
            for key, values in (("momentum", state.momentum), ("largest", state.largest)):
                torch.testing.assert_close(optimizer.state[param][key], values[str(i)][run], rtol=10 * tolerance, atol=tolerance)
            torch.testing.assert_close(optimizer.state[param]["rms"], state.group.rms[run, i], rtol=10 * tolerance, atol=0)
        torch.testing.assert_close(optimizer.param_groups[0]["norm_max"], state.group.norm_max[run], rtol=1e-6, atol=0)


@pytest.mark.parametrize("shift", [-20, 11, 20])
def test_a_power_of_two_in_the_loss_changes_no_bit(shift: int) -> None:
    plain, scaled = leaves(dtype=torch.float32), leaves(dtype=torch.float32)
    optimizers = UnitlessAdam(plain, **KNOBS), UnitlessAdam(scaled, **KNOBS)
    for t in range(8):
        for params, optimizer, scale in zip((plain, scaled), optimizers, (1.0, 2.0**shift), strict=True):
            for param, grad in zip(params, draw(t, torch.float32), strict=True):
                param.grad = grad * scale
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(plain, scaled, strict=True))


def test_groups_are_clipped_apart_and_have_knobs_of_their_own() -> None:
    together, alone = leaves(), [leaves(), leaves()]
    half = len(SHAPES) // 2
    special = {"lr": 0.1, "betas": (0.5, 0.9), "clip_ratio": 0.2, "eps_mode": "absolute", "maximize": True}
    both = UnitlessAdam([{"params": together[:half]}, {"params": together[half:], **special}], **KNOBS)
    singles = [UnitlessAdam(alone[0][:half], **KNOBS), UnitlessAdam(alone[1][half:], **KNOBS | special)]
    for t in range(6):
        for group in (together, *alone):
            for place, (param, grad) in enumerate(zip(group, draw(t), strict=True)):
                param.grad = grad * (100.0 if place < half else 1.0)
        for optimizer in (both, *singles):
            optimizer.step()
    expected = [*alone[0][:half], *alone[1][half:]]
    assert all(torch.equal(a, b) for a, b in zip(together, expected, strict=True))
    assert float(both.param_groups[0]["norm_max"]) > 50 * float(both.param_groups[1]["norm_max"])


def test_a_tensor_that_misses_steps_keeps_its_own_corrections() -> None:
    """Its momentum is the mean of the gradients that it has had; a shared counter would shrink it."""
    params = leaves()[:2]
    optimizer = UnitlessAdam(params, **KNOBS | {"clip_ratio": 1.0})
    seen = []
    for t in range(7):
        params[0].grad = draw(t)[0]
        params[1].grad = draw(t)[1] if t in (3, 5) else None
        seen += [params[1].grad] if params[1].grad is not None else []
        optimizer.step()
    assert [int(optimizer.state[param]["step"]) for param in params] == [7, 2]
    expected = (0.85 * seen[0] + seen[1]) / 1.85
    torch.testing.assert_close(optimizer.state[params[1]]["momentum"], expected, rtol=1e-13, atol=0)


def test_batches_of_any_size_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, pieces = leaves(), leaves()
    walk(UnitlessAdam(whole, **KNOBS), range(4))
    monkeypatch.setattr(unitless_adam, "_CPU_CHUNK", 13)
    walk(UnitlessAdam(pieces, **KNOBS), range(4))
    assert all(torch.equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_dtypes_may_be_mixed_in_a_group() -> None:
    """Each is stepped in its own precision, and all are clipped by one norm."""
    mixed = [nn.Parameter(v.to(d)) for v, d in zip(draw(0), [torch.float32, torch.bfloat16, torch.float64] * 2, strict=True)]
    exact = [nn.Parameter(param.detach().double()) for param in mixed]
    first, second = UnitlessAdam(mixed, **KNOBS), UnitlessAdam(exact, **KNOBS)
    for t in range(4):
        for param, twin, grad in zip(mixed, exact, draw(t), strict=True):
            param.grad = grad.to(param.dtype)
            twin.grad = param.grad.double()
        first.step()
        second.step()
    for param, twin in zip(mixed, exact, strict=True):
        tolerance = {torch.float32: 1e-6, torch.float64: 1e-6, torch.bfloat16: 2.0**-8}[param.dtype]
        torch.testing.assert_close(param.detach().double(), twin.detach(), rtol=tolerance, atol=tolerance)
    short = first.state[mixed[1]]
    assert {key: value.dtype for key, value in short.items()} == {
        "step": torch.int64,
        "momentum": torch.float32,
        "largest": torch.float32,
        "filled": torch.float64,
        "rms": torch.float64,
        "master": torch.float32,
    }
    assert "update_norm" in first.state[mixed[0]]


def test_a_16_bit_parameter_that_somebody_has_written_to_is_followed() -> None:
    param = nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    optimizer = UnitlessAdam([param], **KNOBS)
    walk(optimizer, range(2))
    with torch.no_grad():
        param.fill_(7.0)
    walk(optimizer, range(2, 3))
    assert float((param - 7.0).abs().max()) < 0.5


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resume_is_bitwise_in_the_middle_of_a_run(dtype: torch.dtype) -> None:
    whole, resumed = leaves(dtype=dtype), leaves(1, dtype)
    first, second = UnitlessAdam(whole, **KNOBS, eps_mode="absolute"), UnitlessAdam(resumed)
    walk(first, range(5))
    first.param_groups[0]["betas"] = (0.99, 0.9)
    with torch.no_grad():
        for mine, theirs in zip(resumed, whole, strict=True):
            mine.copy_(theirs)
    second.load_state_dict(through_a_file(first.state_dict()))
    for optimizer in (first, second):
        walk(optimizer, range(5, 9))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    assert torch.equal(first.param_groups[0]["norm_max"], second.param_groups[0]["norm_max"])
    assert second.param_groups[0]["eps_mode"] == "absolute"


def test_a_saved_state_does_not_move_with_the_run() -> None:
    params = leaves()
    optimizer = UnitlessAdam(params, **KNOBS)
    walk(optimizer, range(2))
    kept = copy.deepcopy(optimizer.state_dict())
    other = UnitlessAdam(leaves())
    other.load_state_dict(kept)
    saved = copy.deepcopy(kept)
    walk(other, range(2, 4))
    for index, tensors in saved["state"].items():
        assert all(torch.equal(value, kept["state"][index][key]) for key, value in tensors.items())
    assert torch.equal(saved["param_groups"][0]["norm_max"], kept["param_groups"][0]["norm_max"])


def test_the_state_of_another_optimizer_is_refused() -> None:
    params = leaves()
    adam, mine = torch.optim.Adam(leaves()), UnitlessAdam(params)
    walk(adam, range(1))
    with pytest.raises(IncompatibleCheckpointError, match="norm_max"):
        mine.load_state_dict(adam.state_dict())
    assert not mine.state


def test_a_rate_of_zero_keeps_bits_but_goes_on_learning_about_gradients() -> None:
    params = [nn.Parameter(torch.tensor([[-0.0, 1.0], [math.pi, -2.0]]).to(dtype)) for dtype in (torch.float32, torch.bfloat16)]
    optimizer = UnitlessAdam(params, lr=torch.tensor(0.0), weight_decay=0.5)
    before = [param.detach().view(torch.int32 if param.dtype == torch.float32 else torch.int16).clone() for param in params]
    walk(optimizer, range(3))
    for param, bits in zip(params, before, strict=True):
        assert torch.equal(param.detach().view(bits.dtype), bits)
        assert int(optimizer.state[param]["step"]) == 3
    assert float(optimizer.param_groups[0]["norm_max"]) > 0


def test_parts_come_in_batches_before_parameters_change(monkeypatch: pytest.MonkeyPatch) -> None:
    params = leaves()
    optimizer = UnitlessAdam(params, **KNOBS)
    walk(optimizer, range(3))
    named = {str(i): param.detach().clone() for i, param in enumerate(params)}
    before, rows = [param.detach().clone() for param in params], []

    def look(parts: Parts) -> None:
        rows.extend(tensor_statistics(*one) for one in parts.each())
        torch.testing.assert_close(mean_statistics(*parts), torch.stack(rows[-len(parts.params) :]).mean(0), rtol=1e-9, atol=1e-9)
        assert all(any(torch.equal(p, b) for b in before) for p in parts.params)

    optimizer.on_parts = look
    monkeypatch.setattr(unitless_adam, "_CPU_CHUNK", 13)
    walk(optimizer, range(3, 4))
    assert len(rows) == len(params)
    state = unitless_start({str(i): p.detach() for i, p in enumerate(leaves())})
    start = {str(i): p.detach() for i, p in enumerate(leaves())}
    for step in range(4):
        grads = {str(i): (2.0 if step % 3 == 0 else 0.3) * g for i, g in enumerate(draw(100 + step))}
        start, state, parts = unitless_step(start, grads, state, knobs())
        if step == 2:
            torch.testing.assert_close(start, named, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(torch.stack(rows), torch.stack([tensor_statistics(*one) for one in parts.each()]), rtol=1e-8, atol=1e-8)
    assert copy.deepcopy(optimizer).on_parts is None


BAD = {
    "lr": -1.0,
    "eps": 0.0,
    "weight_decay": math.inf,
    "clip_ratio": 0.0,
    "clip_decay": 1.5,
    "trust_decay": 0.0,
    "betas": (0.9, 1.0),
    "eps_mode": "relativ",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_out_of_range_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} .*{'did you mean' if name == 'eps_mode' else 'got'}"):
        UnitlessAdam(leaves(), **{name: BAD[name]})
    optimizer = UnitlessAdam(leaves())
    with pytest.raises(ConfigError, match=name):
        optimizer.add_param_group({"params": leaves(1), name: BAD[name]})
    assert len(optimizer.param_groups) == 1


def test_sparse_gradients_and_integers_are_refused_by_name() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = UnitlessAdam(table.named_parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="'weight' has a sparse gradient"):
        optimizer.step()
    with pytest.raises(ConfigError, match="int64"):
        UnitlessAdam([torch.zeros(2, dtype=torch.int64)])


def test_it_trains_a_network_and_schedulers_may_turn_every_knob() -> None:
    rng = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 3))
    with torch.no_grad():
        for param in net.parameters():
            param.copy_(0.2 * torch.randn(param.shape, generator=rng))
    x = torch.randn(256, 8, generator=rng)
    label = x[:, :3].argmax(1)
    optimizer = UnitlessAdam(net.parameters(), lr=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.03, total_steps=100, base_momentum=0.8, max_momentum=0.95)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), label)
        loss.backward()
        optimizer.step()
        cycle.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 < 0.9 < losses[0]


def compare(rank: int, world: int, store: str) -> None:
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", store=dist.FileStore(store, world), rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    shapes = ((3, 4), (3, 4), (5,), (1,), (1, 6))  # over two ranks: uneven shards, and empty ones
    for dtype in (torch.float32, torch.bfloat16):
        whole = [nn.Parameter(value) for value in draw(0, dtype, shapes)]
        sharded = [nn.Parameter(distribute_tensor(value, mesh, [Shard(0)])) for value in draw(0, dtype, shapes)]
        reference, optimizer = UnitlessAdam(whole, **KNOBS), UnitlessAdam(sharded, **KNOBS)
        for step in range(4):
            for param, shard, grad in zip(whole, sharded, draw(step, dtype, shapes), strict=True):
                param.grad = grad
                shard.grad = distribute_tensor(grad, mesh, [Shard(0)])
            reference.step()
            optimizer.step()
        for param, shard in zip(whole, sharded, strict=True):
            assert isinstance(shard.data, DTensor)
            assert isinstance(optimizer.state[shard]["momentum"], DTensor)
            torch.testing.assert_close(shard.data.full_tensor(), param.data, rtol=1e-5, atol=1e-6)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_take_the_steps_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(compare, args=(2, str(tmp_path / "store")), nprocs=2, start_method="fork")
