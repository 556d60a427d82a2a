"""The runner: many runs at once are the same runs, each a pure function of its own task and seed."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import TaskError
from metaopt.inner.step import BATCHES_AHEAD, training_step
from metaopt.learners.learner import StepRecord
from metaopt.tasks.task import Task
from tests.oracles.influence_balancing import Nothing

FAMILY = tasks.get("digits_mlp")


def digits(*draws: int, template: str = "16-tanh-b32", horizon: int = 40):
    return [FAMILY.build(FAMILY.sample(template, draw, (horizon, horizon))) for draw in draws]


def bowls(*draws: int, template: str = "8x4-minimum", horizon: int = 40):
    family = tasks.get("quadratic")
    return [family.build(family.sample(template, draw, (horizon, horizon))) for draw in draws]


@pytest.mark.parametrize("name", ["adamw", "mlp", "celo2_base"])
def test_vectorised_run_is_a_loop_over_runs(name: str) -> None:
    learner = learners.get(name, schedule="warmup_cosine")
    theta, group = learner.init_theta(0), digits(0, 1, 2)
    together = inner.run(learner, theta, group, [5, 6, 7], 12, eval_every=5)
    for i, task in enumerate(group):
        alone = inner.run(learner, theta, [task], [5 + i], 12, eval_every=5)
        torch.testing.assert_close(together.loss[:, i], alone.loss[:, 0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together.eval_loss[:, i], alone.eval_loss[:, 0], rtol=1e-5, atol=1e-6)
        for key, value in alone.carry["params"].items():
            torch.testing.assert_close(together.carry["params"][key][i], value[0], rtol=1e-4, atol=1e-5)


def test_a_plain_loop_without_vmap_agrees() -> None:
    learner, (task,) = learners.get("momentum", lr=0.05), bowls(3)
    trace = inner.run(learner, {}, [task], [11], 40)
    key = torch.tensor(11)
    carry, losses = learner.init({}, task, seeds.fold_in(key, 0)), []
    for t in range(40):
        carry, record = learner.advance({}, task, carry, task.batch(seeds.fold_in(key, 1), torch.tensor(t)))
        losses.append(record.loss)
    torch.testing.assert_close(trace.loss[:, 0], torch.stack(losses), rtol=1e-5, atol=1e-6)
    assert BATCHES_AHEAD < 40  # the run above crosses from one group of batches to the next


def test_a_run_is_a_pure_function_of_its_seed() -> None:
    learner, (task,) = learners.get("adam"), digits(0)
    one, two = (inner.run(learner, {}, [task, task], [3, 4], 6) for _ in range(2))
    assert torch.equal(one.loss, two.loss)
    assert not torch.equal(one.loss[:, 0], one.loss[:, 1])
    torch.manual_seed(99)  # the global generator plays no part
    assert torch.equal(inner.run(learner, {}, [task, task], [3, 4], 6).loss, one.loss)
    swapped = inner.run(learner, {}, [task, task], [4, 3], 6)
    torch.testing.assert_close(swapped.loss.flip(1), one.loss, rtol=1e-6, atol=1e-7)


def test_a_longer_run_begins_as_the_shorter_one() -> None:
    learner, group = learners.get("celo2_base"), bowls(0, 1)
    theta = learner.init_theta(0)
    short, long = (inner.run(learner, theta, group, [1, 2], steps, eval_every=10) for steps in (20, 45))
    assert torch.equal(short.loss, long.loss[:20])
    assert torch.equal(short.eval_loss[:2], long.eval_loss[:2])


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [(10, 0, []), (10, 4, [0, 4, 8, 10]), (10, 5, [0, 5, 10]), (10, 1, list(range(11))), (10, 100, [0, 10]), (1, 1, [0, 1])],
)
def test_evaluations_fall_where_promised(steps: int, every: int, expected: list[int]) -> None:
    trace = inner.run(learners.get("sgd"), {}, bowls(0, 1), [0, 1], steps, eval_every=every)
    assert trace.eval_steps.tolist() == expected
    assert trace.eval_loss.shape == trace.eval_raw.shape == (len(expected), 2)
    assert trace.loss.shape == trace.normalised.shape == (steps, 2)


def test_evaluation_does_not_disturb_training_and_is_the_heldout_loss() -> None:
    group = bowls(0, 1)
    quiet, watched = (inner.run(learners.get("adam", lr=0.1), {}, group, [0, 1], 12, eval_every=every) for every in (0, 3))
    assert torch.equal(quiet.loss, watched.loss)
    for i, task in enumerate(group):
        x = {"x": watched.carry["params"]["x"][i]}
        raw = task.loss(x, task.heldout(torch.tensor(0), torch.tensor(0)))
        torch.testing.assert_close(watched.eval_raw[-1, i], raw, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(watched.eval_loss[-1, i], task.normalise(raw), rtol=1e-5, atol=1e-7)


def test_rates_can_be_swept_over_particles() -> None:
    rates = torch.tensor([0.0, 0.05, 1e6])
    (task,) = bowls(0)
    trace = inner.run(learners.get("sgd"), {"lr": rates}, [task] * 3, [1] * 3, 30, theta_stacked=True)
    assert trace.diverged.tolist() == [False, False, True]
    alone = inner.run(learners.get("sgd", lr=0.05), {}, [task], [1], 30)
    torch.testing.assert_close(trace.loss[:, 1], alone.loss[:, 0], rtol=1e-4, atol=1e-5)
    assert float(trace.normalised[-1, 1]) < 0.7 * float(trace.normalised[0, 1])
    assert float(trace.normalised.max()) == task.program.cap
    assert not torch.isfinite(trace.loss[-1, 2])  # raw losses are kept as they are
    assert torch.isfinite(trace.normalised).all()


def test_learns_digits_by_a_margin() -> None:
    trace = inner.run(learners.get("adam", lr=0.01, schedule="warmup_cosine"), {}, digits(0, 1, horizon=150), [0, 1], 150, eval_every=150)
    assert (trace.eval_loss[0] > 0.9).all()
    assert (trace.eval_loss[-1] < 0.35).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(TaskError, match="one seed a task, got 2 tasks and 1 seeds"):
        inner.run(learners.get("sgd"), {}, bowls(0, 1), [0], 5)
    with pytest.raises(TaskError, match="must share a program"):
        inner.run(learners.get("sgd"), {}, [*bowls(0), *bowls(0, template="10x1-none")], [0, 1], 5)
    with pytest.raises(TaskError, match="at least one task"):
        inner.run(learners.get("sgd"), {}, [], [], 5)


def test_new_tasks_of_a_known_program_reuse_the_step() -> None:
    inner.run(learners.get("sgd", lr=0.123), {}, bowls(0), [0], 1)
    before = training_step.cache_info()
    inner.run(learners.get("sgd", lr=0.123), {}, bowls(7, 8), [3, 4], 2)  # equal learner and program, other objects
    after = training_step.cache_info()
    assert (after.misses, after.hits) == (before.misses, before.hits + 1)
    inner.run(learners.get("sgd", lr=0.124), {}, bowls(0), [0], 1)
    assert training_step.cache_info().misses == after.misses + 1  # another rate is another step, not a stale one


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler
def test_compiled_run_agrees() -> None:
    learner = learners.get("celo2_base", schedule="warmup_cosine")
    theta, group = learner.init_theta(0), bowls(0, 1)
    eager, compiled = (inner.run(learner, theta, group, [1, 2], 8, eval_every=4, compile=flag) for flag in (False, True))
    torch.testing.assert_close(compiled.loss, eager.loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled.eval_loss, eager.eval_loss, rtol=1e-4, atol=1e-5)
    assert eager.diverged.tolist() == compiled.diverged.tolist()


@dataclass(frozen=True)
class Keyed(Nothing):
    """A program whose batches are the keys that it was given."""

    def batch(self, numbers, shared, key, step):
        return {"key": key, "step": step}

    heldout = batch


@dataclass(frozen=True)
class Echo:
    """A learner whose loss is the low bits of whatever key it sees."""

    def init(self, theta, task, key):
        return {"key": key}

    def advance(self, theta, task, carry, batch):
        return {"key": carry["key"]}, StepRecord((batch["key"] % 2**20).double() + batch["step"].double() / 2**10)


def test_weights_batches_and_evaluations_have_keys_of_their_own() -> None:
    task = Task(Keyed(), {"horizon": torch.tensor(5.0, dtype=torch.float64)}, {})
    trace = inner.run(Echo(), {}, [task], [77], 4, eval_every=2)
    init, batch, heldout = (seeds.fold_in(torch.tensor(77), i) for i in range(3))
    assert trace.carry["key"].tolist() == [int(init)]
    assert trace.loss[:, 0].tolist() == [int(batch % 2**20) + t / 2**10 for t in range(4)]
    assert trace.eval_raw[:, 0].tolist() == [int(heldout % 2**20) + t / 2**10 for t in (0, 2, 4)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_number_of_steps():
    """In a process of its own, whose memory nothing else has touched. With a tensor kept at every step it grew by 280 MB in 240 steps."""
    code = """
import torch
from pathlib import Path
from metaopt import inner, learners, tasks

torch.set_num_threads(1)
sgd = learners.get("sgd")


def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def run(steps):
    family = tasks.get("modular_arithmetic")
    task = tasks.build(family.sample("plus31-mlp48-share60", 1, (steps, steps)))
    inner.run(sgd, {"lr": torch.tensor(0.01)}, [task] * 16, range(16), budget_steps=steps)


run(40)
before = resident_mb()
run(240)
print(resident_mb() - before)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 140.0, "megabytes"
