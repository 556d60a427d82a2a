"""Costs: bytes counted exactly, seconds that follow the work, one measurement a bucket."""

import pytest
import torch
from torch.func import vmap

from metaopt import learners, tasks
from metaopt.inner import cost
from metaopt.inner.cost import measure_step, step_cost
from metaopt.inner.live_bytes import peak_live_bytes, storage_bytes
from metaopt.inner.step import BATCHES_AHEAD


def digits(template: str = "16-tanh-b32", seed: int = 0):
    family = tasks.get("digits_mlp")
    return family.build(family.sample(template, seed, (40, 40)))


def test_live_bytes_are_those_that_a_hand_counts() -> None:
    x = torch.zeros(1000)  # 4,000 bytes each

    def chain() -> None:
        y = x + 1
        z = y + 1  # two live
        del y
        w = z + 1  # two live
        del z
        v = w.view(10, 100)  # no bytes of its own
        w.add_(1)  # in place
        _ = torch.cat([v, v])  # 8,000 more: the most

    assert peak_live_bytes(chain) == 12_000
    assert peak_live_bytes(lambda: x.view(10, 100)) == 0
    assert peak_live_bytes(lambda: None) == 0
    kept = []
    assert peak_live_bytes(lambda: kept.append([x + 1 for _ in range(5)])) == 20_000


def test_live_bytes_are_seen_under_transforms() -> None:
    x = torch.zeros(7, 50)
    alone = peak_live_bytes(lambda: torch.func.grad(lambda v: (v * v).sum())(x[0]))
    together = peak_live_bytes(lambda: vmap(torch.func.grad(lambda v: (v * v).sum()))(x))
    assert 5 * alone < together < 9 * alone


def test_storages_are_counted_once() -> None:
    x = torch.zeros(100)
    assert storage_bytes({"a": x, "b": [x.view(10, 10), x[:3]], "c": torch.zeros(2, dtype=torch.float64)}) == 416


def test_bytes_of_a_bucket() -> None:
    learner, task = learners.get("adam"), digits()
    found = measure_step(learner, task, 3, repeats=1, min_s=0.0)
    weights = 64 * 16 + 16 + 16 * 10 + 10
    assert found.parameters == weights
    numbers = sum(value.numel() * value.element_size() for value in task.numbers.values())
    assert found.kept_bytes == 6 * (3 * 4 * weights + 8 + numbers)  # six rows of weights, two moments, an int64 counter, numbers
    assert found.batch_bytes == BATCHES_AHEAD * 6 * 32 * (64 * 4 + 8)
    assert found.working_bytes > 6 * 4 * weights  # new weights at least
    assert found.bytes == found.kept_bytes + found.batch_bytes + found.working_bytes
    again = measure_step(learner, task, 3, repeats=1, min_s=0.0)
    assert again.bytes == found.bytes
    double = measure_step(learner, task, 6, repeats=1, min_s=0.0)
    assert (double.kept_bytes, double.batch_bytes) == (2 * found.kept_bytes, 2 * found.batch_bytes)


def test_seconds_are_those_of_a_step_and_its_share_of_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.5, 3.2])
    monkeypatch.setattr(cost, "_median_seconds", lambda *_: next(clock))
    assert measure_step(learners.get("sgd"), digits(), 1).seconds == pytest.approx(0.5 + 3.2 / BATCHES_AHEAD)


def test_the_median_of_repeats_is_taken_for_one_of_as_many_things_as_last_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, now = [], [0.0]

    def run(count: int) -> None:
        counts.append(count)
        now[0] += 0.25 * count * (10 if len(counts) == 4 else 1)  # one of the timings is disturbed

    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])
    assert cost._median_seconds(run, 5, 1.0, "cpu") == 0.25
    assert counts == [2, 1, 4, 4, 4, 4, 4]


def test_seconds_follow_the_work() -> None:
    small = measure_step(learners.get("mlp"), digits("linear-relu-b64"), 1, repeats=3)
    large = measure_step(learners.get("mlp"), digits("32x32-relu-b64"), 32, repeats=3)
    assert 0 < 3 * small.seconds < large.seconds


def test_a_bucket_is_measured_once_whatever_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(cost, "measure_step", lambda *arguments: calls.append(arguments) or len(calls))
    monkeypatch.setattr(cost, "_costs", {})
    learner = learners.get("sgd")
    first = step_cost(learner, digits(), 2)
    assert step_cost(learner, digits(seed=1), 2) == step_cost(learners.get("sgd"), digits(seed=2), 2, threads=1) == first
    others = [
        step_cost(learner, digits(), 3), step_cost(learner, digits(), 2, threads=2), step_cost(learner, digits("24-gelu-b16"), 2),
        step_cost(learners.get("adam"), digits(), 2), step_cost(learner, digits(), 2, compiled=True),
    ]  # fmt: skip
    assert len({first, *others}) == len(calls) == 6


def test_the_thread_count_of_the_caller_is_restored() -> None:
    before = torch.get_num_threads()
    measure_step(learners.get("sgd"), digits(), 1, threads=before + 1, repeats=1, min_s=0.0)
    assert torch.get_num_threads() == before
