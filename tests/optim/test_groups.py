"""Parameter groups that a drop-in user makes say what a task says by name: embeddings, and step sizes of maximal updates."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from metaopt import learners, seeds, tasks
from metaopt.artifacts import Artifact, new_card
from metaopt.errors import ConfigError
from metaopt.inner import run
from metaopt.inner.step import fresh_carries
from metaopt.learners.update_rules import get_rule
from metaopt.optim import LearnedOptimizer, embedding_groups, mu_groups
from metaopt.tasks.families.supervised import cross_entropy
from metaopt.tasks.task import Task, stack_tasks

STEPS, SEED = 8, 7
BATCHES = 1  # the branch of a run's key that its batches are drawn from
PRECISIONS = [(torch.float32, 1e-6), (torch.float64, 1e-12)]


@dataclass(frozen=True)
class Lookup:
    """The next symbol (plus two) from a table and a square layer."""

    embeddings = frozenset({"table"})
    cap = 4.0

    def shared(self):
        return {}

    def init(self, numbers, key):
        dtype = numbers["horizon"].dtype
        return {name: seeds.normal(seeds.fold_in(key, i), (6, 6), dtype) for i, name in enumerate(("table", "head"))}

    def batch(self, numbers, shared, key, step):
        x = (6 * seeds.uniform(seeds.fold_in(key, step), (16,), torch.float64)).long().clamp(max=5)
        return {"x": x, "y": (x + 2) % 6}

    def loss(self, numbers, params, batch):
        return cross_entropy(params["table"][batch["x"]] @ params["head"].T, batch["y"])

    def normalise(self, numbers, raw):
        return raw


def lookup(dtype: torch.dtype) -> Task:
    return Task(Lookup(), {"horizon": torch.tensor(float(STEPS), dtype=dtype)}, {})


def digits_mu(dtype: torch.dtype) -> Task:
    family = tasks.get("digits_mlp_mu")
    return family.build(family.sample("16x3-relu-b64", 3, (STEPS, STEPS))).to(dtype=dtype)


def table_groups(params: dict[str, nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": [params["table"]], "embedding": True}, {"params": [params["head"]]}]


def width_groups(params: dict[str, nn.Parameter]) -> list[dict[str, Any]]:
    return mu_groups(params.items(), inputs=["layer0"], outputs=["layer3"])


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize(
    ("make", "groups", "rule", "options"),
    [
        (lookup, table_groups, "celo2", {"output": "graft"}),
        (lookup, table_groups, "celo2_base", {}),
        (digits_mu, width_groups, "small_fc", {"hidden": [32, 32], "step_mult": 0.01}),
        (digits_mu, width_groups, "celo2", {}),
        (digits_mu, width_groups, "adamw", {}),
    ],
)
def test_groups_retrace_the_inner_run(make, groups, rule: str, options: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    task, learner = make(dtype), learners.get(rule, weight_decay=0.01, **options)
    theta = learner.init_theta(0)
    trace = run(learner, {key: value.to(dtype) for key, value in theta.items()}, [task], [SEED], STEPS)
    start = fresh_carries(learner, theta, stack_tasks([task]), torch.tensor([SEED]), theta_stacked=False)["params"]
    params = {name: nn.Parameter(value[0].clone()) for name, value in start.items()}
    optimizer = LearnedOptimizer(groups(params), Artifact(new_card("twin", rule, options=options), theta), weight_decay=0.01)
    key = seeds.fold_in(torch.tensor(SEED), BATCHES)
    for t in range(STEPS):
        optimizer.zero_grad()
        task.loss(params, task.batch(key, torch.tensor(t))).backward()  # type: ignore[arg-type]
        optimizer.step()
    for name, value in params.items():
        want = trace.carry["params"][name][0]
        torch.testing.assert_close(value.detach(), want, rtol=10 * tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
        assert not torch.equal(want, start[name][0])


def test_an_embedding_and_a_matrix_of_one_shape_step_apart() -> None:
    torch.manual_seed(0)
    start, grad = torch.randn(4, 3), torch.randn(4, 3)
    ends = []
    for groups in (lambda p: [{"params": [p[0]], "embedding": True}, {"params": [p[1]]}], lambda p: p):
        params = [nn.Parameter(start.clone()) for _ in range(2)]
        optimizer = LearnedOptimizer(groups(params), get_rule("celo2"))
        for param in params:
            param.grad = grad.clone()
        optimizer.step()
        ends.append(params)
    assert not torch.equal(*ends[0])
    assert torch.equal(*ends[1])
    assert torch.equal(ends[0][1], ends[1][1])


def test_an_embedding_group_survives_state_dict() -> None:
    def fresh() -> tuple[list[nn.Parameter], LearnedOptimizer]:
        params = [nn.Parameter(torch.full((3, 3), value)) for value in (1.0, 2.0)]
        return params, LearnedOptimizer([{"params": [params[0]], "embedding": True}, {"params": [params[1]]}], get_rule("celo2"))

    def steps(params: list[nn.Parameter], optimizer: LearnedOptimizer, first: int) -> None:
        for t in range(first, first + 2):
            for i, param in enumerate(params):
                param.grad = seeds.normal(seeds.key("g", t, i), (3, 3))
            optimizer.step()

    params, optimizer = fresh()
    steps(params, optimizer, 0)
    twins, twin = fresh()
    with torch.no_grad():
        for a, b in zip(twins, params, strict=True):
            a.copy_(b)
    twin.load_state_dict(optimizer.state_dict())
    steps(params, optimizer, 2)
    steps(twins, twin, 2)
    assert all(torch.equal(a, b) for a, b in zip(params, twins, strict=True))
    assert optimizer.state[params[0]].keys() == {"step", "m", "v"}
    assert "row" in optimizer.state[params[1]]


@pytest.mark.parametrize("value", [1, "yes", None])
def test_a_mark_that_is_no_bool_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"embedding must be True or False, got .*; give embeddings a group of their own"):
        LearnedOptimizer([{"params": [torch.zeros(2, 2, requires_grad=True)], "embedding": value}], get_rule("celo2"))


class Small(nn.Module):
    """A table, hidden layers, a kernel, and a head that is tied to the table if asked."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.up, self.norm, self.mix = nn.Linear(4, 8), nn.LayerNorm(8), nn.Conv1d(8, 6, 3)
        self.head = nn.Linear(4, 10, bias=False)
        if tied:
            self.head.weight = self.table.weight


def by_name(groups: list[dict[str, Any]], key: str) -> dict[str, Any]:
    return {name: group[key] for group in groups for name, _ in group["params"]}


@pytest.mark.parametrize("tied", [False, True])
def test_embedding_groups_find_tables(tied: bool) -> None:
    model = Small(tied)
    groups = embedding_groups(model)
    marked = {name for name, mark in by_name(groups, "embedding").items() if mark}
    assert marked == {"table.weight"}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    LearnedOptimizer(groups, "celo2-base")
    assert [group["embedding"] for group in embedding_groups(nn.Linear(2, 2))] == [False]


def test_mu_groups_divide_hidden_matrices_by_their_fan_in() -> None:
    groups = mu_groups(Small(), inputs=["up"], outputs=["head"], lr=0.6)
    rates = by_name(groups, "lr")
    assert rates.pop("mix.weight") == pytest.approx(0.6 / 24)
    assert set(rates.values()) == {0.6}
    assert {name for name, mark in by_name(groups, "embedding").items() if mark} == {"table.weight"}
    everything = by_name(mu_groups(Small(), inputs=[], outputs=["head.weight"]), "lr")
    assert everything["up.weight"] == pytest.approx(0.25)
    assert (everything["head.weight"], everything["table.weight"], everything["up.bias"], everything["norm.weight"]) == (1, 1, 1, 1)
    LearnedOptimizer(groups, get_rule("small_fc"))


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (["upp"], ["head"], "mu_groups: no parameter belongs to 'upp'; known: table.weight, up.weight"),
        (["up"], ["head.weigth"], r"mu_groups: no parameter belongs to 'head.weigth'; did you mean 'head.weight'\?"),
        (["up", "head"], ["head"], "mu_groups: 'head.weight' belongs to inputs and to outputs; name it in one of them"),
    ],
)
def test_layers_that_do_not_exist_are_named(inputs: list[str], outputs: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mu_groups(Small(), inputs=inputs, outputs=outputs)
