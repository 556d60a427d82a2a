"""Backpropagation: clipped, checkpointed, restarted and resumed, against plain automatic differentiation of `inner.run`."""

import math
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from metaopt import inner, learners
from metaopt.errors import ConfigError
from metaopt.estimators import ESTIMATORS, FullBackprop, TruncatedBackprop, backprop, flatten
from metaopt.estimators.backprop import particle_mean
from metaopt.learners.learner import StepRecord
from metaopt.tasks.task import Task
from tests.estimators.float64 import source
from tests.oracles.influence_balancing import Endless, Nothing

GRADS = torch.tensor([[1.0, -2.0], [3.0, 50.0], [-1.0, 4.0]])


def test_the_mean_over_particles() -> None:
    mean, clipped, dropped = particle_mean(GRADS, None)
    torch.testing.assert_close(mean, GRADS.mean(0))
    assert (clipped, dropped) == (0.0, 0)


def test_entries_are_clipped_particle_by_particle() -> None:
    mean, clipped, _ = particle_mean(GRADS, 2.0)
    torch.testing.assert_close(mean, torch.tensor([2.0 / 3, 2.0 / 3]))
    assert clipped == pytest.approx(3 / 6)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_particles_that_are_not_finite_are_left_out_and_counted(bad: float) -> None:
    grads = GRADS.clone()
    grads[1, 0] = bad
    mean, clipped, dropped = particle_mean(grads, 3.0)
    torch.testing.assert_close(mean, torch.tensor([0.0, 0.5]))
    assert (clipped, dropped) == (0.25, 1)
    mean, clipped, dropped = particle_mean(torch.full((2, 3), bad), 3.0)
    assert mean.isnan().all()  # never zeros in silence: the trainer drops the shard, and counts it
    assert (clipped, dropped) == (0.0, 2)


def exact(learner, theta, episodes, particles: int, steps: int, objective: str = "mean") -> torch.Tensor:
    """Derivative of whole runs by `inner.run`, which knows nothing of windows."""
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    chosen = [episodes.task(p, 0) for p in range(particles)]
    trace = inner.run(learner, leaves, chosen, [episodes.run_seed(p, 0) for p in range(particles)], steps)
    loss = trace.normalised.mean() if objective == "mean" else trace.normalised[-1].mean()
    return flatten(dict(zip(theta, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True)))


RULES = {"learnable_adam": ("quadratic", "10x1-gradient"), "mlp": ("quadratic", "5x5-none"), "celo2_base": ("digits_mlp", "16-tanh-b32")}


@pytest.mark.parametrize("objective", ["mean", "last"])
@pytest.mark.parametrize("rule", RULES)
def test_learned_rules_on_bundled_tasks(rule: str, objective: str) -> None:
    learner, episodes = learners.get(rule, schedule="warmup_cosine"), source(7, *RULES[rule])
    theta = {name: value.double() for name, value in learner.init_theta(0).items()}
    want = exact(learner, theta, episodes, 4, 7, objective)
    assert float(want.abs().max()) > 1e-3
    recipes = [
        TruncatedBackprop(window=7, objective=objective),
        *(FullBackprop(objective=objective, checkpoint_steps=c) for c in (0, 1, 7)),
    ]
    for recipe in recipes:
        got = recipe.build(learner, episodes, 2, 0).estimate(theta, 0)
        torch.testing.assert_close(flatten(got.grad), want, rtol=1e-9, atol=1e-11)
        assert (got.inner_steps, got.sequential_steps, got.nonfinite, got.diverged) == (28, 7, 0, 0)


def test_a_window_sees_itself_only_and_states_persist() -> None:
    learner, episodes = learners.get("learnable_adam"), source(8)
    theta = {name: value.double() for name, value in learner.init_theta(0).items()}
    estimator = TruncatedBackprop(window=4).build(learner, episodes, 1, 0)
    losses = [estimator.estimate(theta, k).loss for k in range(4)]
    trace = inner.run(learner, theta, [episodes.task(p, 0) for p in range(2)], [episodes.run_seed(p, 0) for p in range(2)], 8).normalised
    assert losses[:2] == pytest.approx([float(trace[:4].mean()), float(trace[4:].mean())], rel=1e-12)
    assert losses[2] != pytest.approx(losses[0], rel=1e-3)  # another episode
    assert not any(leaf.requires_grad for leaf in torch.utils._pytree.tree_leaves(estimator.state()) if isinstance(leaf, torch.Tensor))


@dataclass(frozen=True)
class Uneven(Endless):
    def task(self, particle, episode):
        return Task(Nothing(cap=100.0), {"horizon": torch.tensor(2.0 + 3 * particle, dtype=torch.float64)}, {})


@dataclass(frozen=True)
class Growing:
    """s' = r s with s_0 = 1, loss s: the loss after step t is r^t, its derivative t r^(t - 1)."""

    rate: float = 1.1

    def init_theta(self, seed):
        return {"r": torch.tensor(self.rate, dtype=torch.float64)}

    def init(self, theta, task, key):
        return {"s": torch.ones_like(theta["r"])}

    def advance(self, theta, task, carry, batch):
        s = theta["r"] * carry["s"]
        return {"s": s}, StepRecord(s)


@pytest.mark.parametrize("checkpoint_steps", [0, 1, 3, 50])
@pytest.mark.parametrize("objective", ["mean", "last"])
def test_horizons_of_unequal_length(objective: str, checkpoint_steps: int) -> None:
    recipe = FullBackprop(objective=objective, checkpoint_steps=checkpoint_steps)
    got = recipe.build(Growing(), Uneven(), 2, 0).estimate(Growing().init_theta(0), 0)
    horizons = [2, 5, 8, 11]
    slopes = [[t * 1.1 ** (t - 1) for t in range(1, n + 1)] for n in horizons]
    want = sum((sum(s) / len(s) if objective == "mean" else s[-1]) for s in slopes) / 4
    assert float(got.grad["r"]) == pytest.approx(want, rel=1e-12)
    assert (got.inner_steps, got.sequential_steps) == (sum(horizons), 11)


def test_exploding_gradients_are_clipped_and_reported() -> None:
    recipe = TruncatedBackprop(window=6, clip=3.0)
    got = recipe.build(Growing(2.0), Endless(6), 2, 0).estimate(Growing(2.0).init_theta(0), 0)
    assert float(got.grad["r"]) == 3.0
    assert got.clipped_frac == 1.0


@pytest.mark.parametrize("name", ["truncated_backprop", "full_backprop"])
def test_runs_that_diverge_are_counted_and_go_on(name: str) -> None:
    # From 2 on, r^t passes the cap of 100 at step 7.
    estimator = ESTIMATORS[name](window=9).build(Growing(2.0), Uneven(), 2, 0)
    got = estimator.estimate(Growing(2.0).init_theta(0), 0)
    assert got.diverged == 2  # horizons 8 and 11 of 2, 5, 8, 11
    assert torch.isfinite(got.grad["r"])


def test_an_infinite_derivative_leaves_its_particle_out() -> None:
    @dataclass(frozen=True)
    class Rooted(Growing):
        def init(self, theta, task, key):
            return {"s": (task.horizon > 5).double()}

        def advance(self, theta, task, carry, batch):
            return carry, StepRecord(torch.sqrt(carry["s"] * theta["r"]))

    got = TruncatedBackprop(window=1).build(Rooted(4.0), Uneven(9), 2, 0).estimate({"r": torch.tensor(4.0, dtype=torch.float64)}, 0)
    assert got.nonfinite == 2  # d sqrt(0 r) / dr is not a number for the two short horizons
    assert float(got.grad["r"]) == pytest.approx(0.25)


def graph_size(output: torch.Tensor) -> int:
    """Number of operations that an output's graph holds."""
    seen, todo = set(), [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [parent for parent, _ in node.next_functions]
    return len(seen)


def test_checkpoints_keep_a_chunk_of_the_graph_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, derivatives = [], backprop._derivatives

    def watch(outputs, cotangents, inputs):
        sizes.append(graph_size(outputs[0]))
        return derivatives(outputs, cotangents, inputs)

    monkeypatch.setattr(backprop, "_derivatives", watch)
    learner, episodes = learners.get("learnable_adam"), source(64)
    theta = {name: value.double() for name, value in learner.init_theta(0).items()}
    largest = {}
    for every in (4, 0, 64):
        sizes.clear()
        FullBackprop(checkpoint_steps=every).build(learner, episodes, 1, 0).estimate(theta, 0)
        largest[every] = max(sizes)
    assert largest[64] > 6 * largest[0] > 9 * largest[4]  # chunks of 64, 8 and 4 steps


MEMORY = """
import resource, sys, torch
torch.set_num_threads(1)
from metaopt import learners
from metaopt.estimators import FullBackprop
from tests.estimators.float64 import source

def used(horizon):
    episodes = source(horizon, "digits_mlp", "48-silu-b128").episodes
    FullBackprop(checkpoint_steps=int(sys.argv[1])).build(learner, episodes, 4, 0).estimate(learner.init_theta(0), 0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

learner = learners.get("learnable_adam")
base = used(2)
print((used(196) - base) / 1024)
"""


def peak_mib(checkpoint_steps: int) -> float:
    """Memory that one estimate of 8 runs of 196 steps adds to a process."""
    done = subprocess.run([sys.executable, "-c", MEMORY, str(checkpoint_steps)], capture_output=True, text=True, check=True, timeout=250)
    return float(done.stdout)


@pytest.mark.slow
def test_checkpoints_save_memory() -> None:
    whole, root = peak_mib(196), peak_mib(0)
    assert root < whole / 4


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="objective must be mean or last, got 'best'"):
        backprop.Backprop(Growing(), Endless(), 2, 3, objective="best")
