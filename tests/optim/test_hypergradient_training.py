"""Hypergradient optimizers at work: the drop-in contract, schedulers, closures, scaled losses, two processes, and a rate to mend."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from metaopt.errors import ConfigError
from metaopt.optim import HypergradientAdam, HypergradientAdamW, HypergradientLion, HypergradientRMSProp, HypergradientSGD
from metaopt.testing import OPTIMIZER_CLAUSES, check_optimizer_contract

MAKES: dict[str, Callable[..., Any]] = {
    "sgd": HypergradientSGD,
    "momentum": lambda params, **options: HypergradientSGD(params, 0.01, 0.9, **options),
    "nesterov": lambda params, **options: HypergradientSGD(params, 0.01, 0.9, True, **options),
    "adam": HypergradientAdam,
    "adamw": HypergradientAdamW,
    "rmsprop": HypergradientRMSProp,
    "rmsprop momentum": lambda params, **options: HypergradientRMSProp(params, momentum=0.5, **options),
    "lion": HypergradientLion,
}
OFF = {"name": "sgd", "lr": 0.0}
# One tower joins its tensors: what one group learned is in the rate of a group that comes later, and a NaN in one tensor stops the learning
# of all, so that the next rate is another one. Both are what `global` means; with a tower that stands still every clause holds.
JOINED = {"add_param_group", "non_finite_gradients"}


@pytest.mark.parametrize(
    "options", [{"hyper": OFF}, {"hyper": OFF, "mode": "per_tensor", "update": "cosine"}], ids=["global", "per_tensor"]
)
@pytest.mark.parametrize("name", MAKES)
def test_every_clause_of_the_contract(name: str, options: dict[str, Any]) -> None:
    assert check_optimizer_contract(lambda params: MAKES[name](params, **options)) == tuple(OPTIMIZER_CLAUSES)


@pytest.mark.parametrize(
    ("options", "lacks"),
    [
        ({}, JOINED),
        ({"update": "cosine", "hyper": ["adam", "sgd"]}, JOINED),
        ({"mode": "per_group", "update": "multiplicative"}, {"non_finite_gradients"}),
        ({"mode": "per_tensor", "update": "multiplicative", "hyper": ["sign", "momentum", "rmsprop"]}, set()),
    ],
)
@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_the_contract_while_towers_learn(name: str, options: dict[str, Any], lacks: set[str]) -> None:
    # A rate that runs away over sixty equal gradients takes the clause's ruler with it, not the sum of small steps.
    check_optimizer_contract(lambda params: MAKES[name](params, **options), skip=lacks | {"small_steps"})


@pytest.mark.parametrize(
    ("name", "learn"),
    [
        ("momentum", ("lr", "momentum")),
        ("nesterov", ("momentum",)),
        ("adam", ("lr", "beta1", "beta2", "eps")),
        ("rmsprop", ("lr", "alpha", "eps")),
    ],
)
def test_the_contract_with_more_to_learn(name: str, learn: tuple[str, ...]) -> None:
    check_optimizer_contract(lambda params: MAKES[name](params, learn=learn, hyper=OFF))


def problem(seed: int = 0) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    for param in model.parameters():
        param.data = 0.4 * torch.randn(param.shape, generator=source)
    x = torch.randn(64, 6, generator=source)
    return model, x, torch.sin(x @ torch.randn(6, 1, generator=source))


def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (model(x) - y).square().mean()


@pytest.mark.parametrize(
    ("plain", "made"),
    [
        (lambda p: torch.optim.SGD(p, 1e-4), lambda p: HypergradientSGD(p, 1e-4)),
        (lambda p: torch.optim.SGD(p, 1e-5, 0.9), lambda p: HypergradientSGD(p, 1e-5, 0.9, update="cosine")),
        (lambda p: torch.optim.Adam(p, 1e-5), lambda p: HypergradientAdam(p, 1e-5, update="cosine")),
        (lambda p: torch.optim.AdamW(p, 1e-6), lambda p: HypergradientAdamW(p, 1e-6, mode="per_tensor", update="cosine")),
        (lambda p: torch.optim.RMSprop(p, 1e-6), lambda p: HypergradientRMSProp(p, 1e-6, mode="per_group", update="multiplicative")),
        (lambda p: torch.optim.Adam(p, 1e-5), lambda p: HypergradientLion(p, 1e-5, update="cosine")),
    ],
)
def test_a_rate_that_is_far_too_small_is_mended(plain: Callable[..., Any], made: Callable[..., Any]) -> None:
    losses = []
    for make in (plain, made):
        model, x, y = problem()
        optimizer = make(model.parameters())
        for _ in range(200):
            optimizer.zero_grad()
            loss_of(model, x, y).backward()
            optimizer.step()
        losses.append(float(loss_of(model, x, y).detach()))
    start = float(loss_of(*problem()).detach())
    assert losses[0] > 0.9 * start, "the plain optimizer stands still"
    assert losses[1] < 0.6 * start
    assert optimizer.hyperparameters()[0]["lr"] > 10 * optimizer.param_groups[0]["lr"]


def test_step_returns_the_loss_of_the_closure() -> None:
    model, x, y = problem()
    optimizer = HypergradientAdam(model.parameters())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(float(loss_of(*problem()).detach()))
    assert optimizer.step(loss=2.0) == 2.0
    assert optimizer.step() is None


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: min(1.0, t / 3)),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=20, cycle_momentum=False),
    "ReduceLROnPlateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_multiply_what_is_learned(name: str) -> None:
    param = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = HypergradientSGD([param], 0.1, hyper={"name": "sgd", "lr": 1e-2})
    schedule, factors = SCHEDULERS[name](optimizer), set()
    for t in range(10):
        param.grad = torch.full_like(param, 0.5 if t < 5 else -0.5)
        factor, before = optimizer.param_groups[0]["lr"] / 0.1, param.detach().clone()
        optimizer.step()
        factors.add(factor)
        rate = factor * optimizer.hyperparameters()[0]["lr"]
        torch.testing.assert_close(before - param.detach(), rate * param.grad)
        schedule.step(*([1.0] if name == "ReduceLROnPlateau" else []))
    assert optimizer.hyperparameters()[0]["lr"] != 0.1
    assert len(factors) > 2


def test_a_scheduler_resumes_with_its_optimizer() -> None:
    def build() -> tuple[nn.Parameter, Any, Any]:
        param = nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = HypergradientSGD([param], 0.1, momentum=0.9)
        return param, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)

    def run(param: nn.Parameter, optimizer: Any, schedule: Any, steps: int) -> None:
        for _ in range(steps):
            param.grad = param.detach() - 0.2
            optimizer.step()
            schedule.step()

    whole, cut, again = build(), build(), build()
    run(*whole, 8)
    run(*cut, 4)
    again[0].data.copy_(cut[0].detach())
    for mine, saved in zip(again[1:], cut[1:], strict=True):
        mine.load_state_dict(copy.deepcopy(saved.state_dict()))
    run(*again, 4)
    assert torch.equal(whole[0], again[0])
    assert whole[1].hyperparameters() == again[1].hyperparameters()


@pytest.mark.parametrize("name", MAKES)
def test_a_scaled_loss_gives_the_unscaled_run_and_skips_overflows(name: str) -> None:
    runs = []
    for scaled in (False, True):
        model, x, y = problem()
        optimizer = MAKES[name](model.parameters())
        scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=1024.0, growth_interval=10_000)
        for t in range(6):
            if t == 3 and not scaled:
                continue
            optimizer.zero_grad()
            scaler.scale(loss_of(model, x, y)).backward()
            if t == 3:
                next(model.parameters()).grad.fill_(torch.inf)  # type: ignore[union-attr]
            scaler.step(optimizer)
            scaler.update(1024.0) if scaled else None
        runs.append((list(model.parameters()), optimizer))
    (plain, reference), (params, optimizer) = runs
    assert all(torch.equal(a, b) for a, b in zip(plain, params, strict=True)), "a power of two changes no digits"
    assert reference.hyperparameters() == optimizer.hyperparameters()
    assert (optimizer.nonfinite_gradients, optimizer.skipped) == (0, 0)


@pytest.mark.parametrize("mode", ["global", "per_group", "per_tensor"])
def test_groups_that_come_later(mode: str) -> None:
    model, x, y = problem()
    params = list(model.parameters())
    optimizer = HypergradientSGD(params[:2], 0.05, mode=mode, update="cosine")

    def train(steps: int) -> None:
        for _ in range(steps):
            model.zero_grad()
            loss_of(model, x, y).backward()
            optimizer.step()

    train(5)
    learned = optimizer.hyperparameters()
    optimizer.add_param_group({"params": params[2:], "lr": 0.01})
    after = optimizer.hyperparameters()
    assert after[: len(learned)] == learned
    # A rate is that of the scope's own groups: the one tower's is still told for the first.
    assert after[len(learned) :] == {"global": [], "per_group": [{"lr": 0.01}], "per_tensor": [{"lr": 0.01}] * 2}[mode]
    before = params[2].detach().clone()
    train(1)
    factor = optimizer.hyperparameters()[0]["lr"] / 0.05 if mode == "global" else 1.0
    assert params[2].grad is not None
    torch.testing.assert_close(before - params[2].detach(), 0.01 * factor * params[2].grad)
    train(5)
    assert all(new != old for new, old in zip(optimizer.hyperparameters(), after, strict=True))
    resumed = HypergradientSGD([{"params": params[:2]}, {"params": params[2:]}], 1.0, mode=mode, update="cosine")
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.hyperparameters() == optimizer.hyperparameters()


def test_a_bad_group_leaves_the_optimizer_as_it_was() -> None:
    model, _, _ = problem()
    params = list(model.parameters())
    optimizer = HypergradientAdam(params[:2], mode="per_tensor", bounds=(1e-4, 1e-2))
    for group, message in (
        ({"lr": -1.0}, "lr must be >= 0"),
        ({"lr": 1.0}, r"lr=1 lies outside its bounds"),
        ({"eps": -1.0}, "eps must be"),
    ):
        with pytest.raises(ConfigError, match=message):
            optimizer.add_param_group({"params": params[2:], **group})
        assert len(optimizer.param_groups) == 1
        assert len(optimizer.hyperparameters()) == 2
    optimizer.add_param_group({"params": params[2:], "lr": 5e-3})
    assert [values["lr"] for values in optimizer.hyperparameters()] == [1e-3, 1e-3, 5e-3, 5e-3]


def test_a_model_that_learns_under_half_precision_autocast() -> None:
    model, x, y = problem()
    optimizer = HypergradientAdamW(model.parameters(), 1e-5, update="cosine")
    start = float(loss_of(model, x, y).detach())
    for _ in range(60):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, x, y)
        loss.backward()
        optimizer.step()
    assert float(loss_of(model, x, y).detach()) < start
    assert optimizer.hyperparameters()[0]["lr"] > 1e-5


def two_ranks(rank: int, world: int, store: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, world), rank=rank, world_size=world)
    model, x, y = problem()
    half = slice(rank * 32, rank * 32 + 32)
    parallel = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = HypergradientAdam(parallel.parameters(), hyper=["adam", "sgd"], learn=("lr", "beta1"), mode="per_tensor")
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(parallel, x[half], y[half]).backward()
        optimizer.step()
    mine = torch.cat([value.flatten() for _, value in sorted(optimizer.param_groups[0]["tower_state"].items())])
    mine = torch.cat([mine, *(param.detach().double().flatten() for param in model.parameters())])
    both = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(both, mine)
    assert torch.equal(both[0], both[1]), "equal gradients, equal towers, equal weights"
    assert len({values["lr"] for values in optimizer.hyperparameters()}) == 4
    mesh = init_device_mesh("cpu", (world,))
    shard = nn.Parameter(distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)]))
    assert isinstance(shard.data, DTensor)
    with pytest.raises(ConfigError, match="parameters must be whole tensors, got a DTensor"):
        HypergradientSGD([shard])
    dist.destroy_process_group()


def test_two_processes_learn_the_same(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(two_ranks, args=(2, str(tmp_path / "store")), nprocs=2, start_method="fork")
