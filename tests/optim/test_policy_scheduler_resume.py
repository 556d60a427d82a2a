"""A `PolicyScheduler` that is saved and loaded goes on with the same bits, and several ranks agree."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

from metaopt.errors import ConfigError, IncompatibleCheckpointError
from metaopt.optim import PolicyScheduler, UnitlessAdam
from tests.optim.policies import TOTAL, Run, always, loss_of, model, policy
from tests.optim.test_policy_scheduler import HALVE, diverge

OPTIM = torch.optim
MADE: dict[str, Any] = {
    "AdamW": lambda p: OPTIM.AdamW(p, lr=0.01, betas=(0.9, 0.9)),
    "SGD": lambda p: OPTIM.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "UnitlessAdam": lambda p: UnitlessAdam(p, lr=0.01),
}


def resumed(run: Run, path: Path, **options: Any) -> Run:
    """The same run in what could be another process."""
    state = {"net": run.net.state_dict(), "optimizer": run.optimizer.state_dict(), "scheduler": run.scheduler.state_dict()}
    torch.save({**state, "stored": run.stored}, path)
    loaded = torch.load(path, weights_only=True)  # tensors, numbers and texts only
    again = Run(type(run).made, type(run).artifact, **options)  # type: ignore[attr-defined]
    again.net.load_state_dict(loaded["net"])
    again.optimizer.load_state_dict(loaded["optimizer"])
    again.scheduler.load_state_dict(loaded["scheduler"])
    again.stored, again.at = loaded["stored"], run.at
    return again


def assert_same(one: Any, other: Any) -> None:
    """Equal bits; what is unknown is NaN in both."""
    for a, b in zip(*map(torch.utils._pytree.tree_leaves, (one, other)), strict=True):
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        else:
            assert a == b


@pytest.mark.parametrize("at", [1, 7, 33])
@pytest.mark.parametrize("name", MADE)
def test_resume_is_bitwise(name: str, at: int, tmp_path: Path) -> None:
    class Mine(Run):
        made, artifact = staticmethod(MADE[name]), policy(seed=2, saves=True)

    options: dict[str, Any] = {"registers": True, "heldout": True, "guard": (0.1, 2.0)}
    whole = Mine(Mine.made, Mine.artifact, **options).advance()
    part = resumed(Mine(Mine.made, Mine.artifact, **options).advance(at), tmp_path / "saved.pt", **options).advance(TOTAL - at)
    assert any(call == "load" for call, _ in whole.calls)
    assert whole.log == part.log
    assert all(torch.equal(a, b) for a, b in zip(whole.weights(), part.weights(), strict=True))
    assert_same(whole.scheduler.state_dict(), part.scheduler.state_dict())


def test_the_state_of_a_run_is_not_changed_by_what_follows() -> None:
    run = Run(MADE["AdamW"], policy()).advance(7)
    state = run.scheduler.state_dict()
    kept = copy.deepcopy(state)
    run.advance(10)
    assert_same(state, kept)
    other = Run(MADE["AdamW"], policy())
    other.scheduler.load_state_dict(state)
    other.optimizer.param_groups[0]["lr"] = state["log"][-1]["values"]["lr"]
    other.advance(10)
    assert_same(state, kept)


def test_a_cosine_goes_on(tmp_path: Path) -> None:
    class Mine(Run):
        made, artifact = staticmethod(MADE["AdamW"]), always(HALVE)

    run = Mine(Mine.made, Mine.artifact).advance(5)
    diverge(run, 10)
    again = resumed(run, tmp_path / "saved.pt")
    rates = []
    for one in (run, again):
        one.advance(6)
        rates.append(one.optimizer.param_groups[0]["lr"])
    assert rates[0] == rates[1] < 0.004


def test_a_state_of_another_scheduler_is_refused() -> None:
    state = Run(MADE["AdamW"], policy()).advance(6).scheduler.state_dict()

    def refused(message: str, run: Run) -> None:
        before = run.scheduler.state_dict()
        with pytest.raises(IncompatibleCheckpointError, match=message):
            run.scheduler.load_state_dict(state)
        assert run.scheduler.state_dict()["taken"] == before["taken"] == 0
        assert run.log == []

    refused("state_dict has total_steps 36, the scheduler 37; build it with that one", Run(MADE["AdamW"], policy(), total_steps=37))
    refused("state_dict has decisions 8, the scheduler 9", Run(MADE["AdamW"], policy(), decisions=9))
    refused(r"state_dict has artifact 'mine@[0-9a-f]+', the scheduler 'mine@", Run(MADE["AdamW"], policy(seed=1)))
    refused("state_dict is of an optimizer with lr, weight_decay, .*, this one has lr; build the same", Run(MADE["SGD"], policy()))
    wider = Run(MADE["AdamW"], policy())
    wider.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    refused(r"state_dict has weights of shapes \(6, 3\), .*; build the same model", wider)
    state["version"] = 99
    refused("state_dict has version 99, the scheduler 1", Run(MADE["AdamW"], policy()))


def ranks(rank: int, world: int, store: str, out: str) -> None:
    """A data-parallel run by hand: each rank has its own half of the batch, gradients are averaged."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, world), rank=rank, world_size=world)
    net = nn.parallel.DistributedDataParallel(model())
    optimizer = UnitlessAdam(net.parameters(), lr=0.01)
    stored: dict[int, Any] = {}
    asked: list[str] = []

    def save(slot: int) -> None:
        asked.append(f"save{slot}")
        stored[slot] = copy.deepcopy((net.state_dict(), optimizer.state_dict()))

    def load(slot: int) -> None:
        asked.append(f"load{slot}")
        net.load_state_dict(stored[slot][0])
        optimizer.load_state_dict(copy.deepcopy(stored[slot][1]))

    def evaluate() -> torch.Tensor:
        asked.append("eval")
        loss = loss_of(net, 999 + rank)
        dist.all_reduce(loss)  # as evaluations do; only fair if every rank is asked
        return loss + rank

    scheduler = PolicyScheduler(optimizer, policy(seed=2, saves=True), TOTAL, 8, evaluate, save, load)
    for at in range(TOTAL):
        optimizer.zero_grad()
        loss = loss_of(net, 2 * at + rank)
        loss.backward()
        optimizer.step()
        scheduler.step(loss)
    weights = [param.detach().clone() for param in net.parameters()]
    torch.save({"log": scheduler.decision_log, "weights": weights, "asked": asked}, f"{out}{rank}")
    mesh = init_device_mesh("cpu", (world,))
    sharded = nn.Parameter(distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)]))
    with pytest.raises(ConfigError, match=r"parameter 1 of group 0 is sharded \(DTensor\), .* use Dist"):
        PolicyScheduler(OPTIM.AdamW([nn.Parameter(torch.ones(2)), sharded]), policy(), TOTAL)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_follow_the_first(tmp_path: Path) -> None:
    arguments = (2, str(tmp_path / "store"), str(tmp_path / "rank"))
    torch.multiprocessing.start_processes(ranks, args=arguments, nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"rank{rank}", weights_only=True) for rank in (0, 1))
    assert first["log"] == second["log"]
    assert len(first["log"]) == 8
    assert sum(name.startswith("load") for name in first["asked"]) > 0
    assert first["asked"] == second["asked"]
    assert all(torch.equal(a, b) for a, b in zip(first["weights"], second["weights"], strict=True))
