"""Parameters that are DTensors, as FSDP2 makes them: two processes with uneven shards take the steps of one."""

import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh

from metaopt.learners.update_rules import get_rule
from metaopt.optim import LearnedOptimizer

SHAPES = ((3, 4), (3, 4), (5,), (1,))  # over two ranks: uneven shards, and an empty one
RULES = ("adamw", "learnable_adam")  # elementwise; rules that flatten a tensor need whole tensors


def compare(rank: int, world: int, store: str) -> None:
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", store=dist.FileStore(store, world), rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    for rule in RULES:
        values = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(SHAPES)]
        whole = [nn.Parameter(value.clone()) for value in values]
        sharded = [nn.Parameter(distribute_tensor(value, mesh, [Shard(0)])) for value in values]
        reference, optimizer = LearnedOptimizer(whole, get_rule(rule)), LearnedOptimizer(sharded, get_rule(rule))
        for step in range(3):
            for place, (param, shard) in enumerate(zip(whole, sharded, strict=True)):
                param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(10 * step + place))
                shard.grad = distribute_tensor(param.grad, mesh, [Shard(0)])
            reference.step()
            optimizer.step()
        for param, shard in zip(whole, sharded, strict=True):
            assert isinstance(shard.data, DTensor)
            torch.testing.assert_close(shard.data.full_tensor(), param.data, rtol=1e-5, atol=1e-7, msg=lambda m, r=rule: f"{r}: {m}")
    param = nn.Parameter(distribute_tensor(torch.ones(3, 4), mesh, [Shard(0)]))
    param.grad = distribute_tensor(torch.ones(3, 4), mesh, [Shard(0)])
    with pytest.raises(RuntimeError, match="rule mlp cannot run on tensors of shape"):
        LearnedOptimizer([param], get_rule("mlp")).step()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_take_the_steps_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(compare, args=(2, str(tmp_path / "store")), nprocs=2, start_method="fork")
