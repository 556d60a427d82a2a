"""Predictions: arithmetic on known costs by hand, a budget of measuring, and the right order of magnitude of a real run."""

import time

import pytest

from metaopt import learners, tasks
from metaopt.config import Config, load_config
from metaopt.inner.cost import StepCost
from metaopt.outer import prediction
from metaopt.outer.mixing import visit_rates
from metaopt.outer.prediction import Prediction, predict, shard_costs
from metaopt.outer.shards import make_learner, shard_sources
from metaopt.seeds import stable_hash

SMALL = ["outer.shard_particles=2", "outer.estimator.window=4", "tasks.0.horizon=[8, 64]", "tasks.1.horizon=[8, 64]", "outer.steps=100"]
SECONDS = {"quadratic": 0.01, "digits_mlp": 0.05}


def config(*changes: str) -> Config:
    return load_config("quickstart", [*SMALL, *changes])


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every step of a family costs the same; an estimate is twice its steps. Returns the programs that were measured."""
    measured: list[object] = []

    def cost(learner: object, task: tasks.Task, pairs: int, threads: int, device: str) -> StepCost:
        measured.append(task.program)
        name = "quadratic" if "Quadratic" in repr(task.program)[:20] else "digits_mlp"
        return StepCost(SECONDS[name], 10, 1000 * pairs, 100, 10)

    monkeypatch.setattr(prediction, "step_cost", cost)
    monkeypatch.setattr(prediction, "_probe", lambda *_: (False, 2.0))
    return measured


def test_an_outer_step_lasts_until_the_last_worker_is_done(known: list[object]) -> None:
    estimate = {name: 2.0 * 4 * seconds for name, seconds in SECONDS.items()}  # overhead, window
    alone = predict(config())
    assert alone.seconds_per_outer_step == pytest.approx(2 * estimate["quadratic"] + 2 * estimate["digits_mlp"])
    assert alone.total_seconds == pytest.approx(100 * alone.seconds_per_outer_step)
    two = predict(config(), workers=2)
    assert two.seconds_per_outer_step == pytest.approx(estimate["quadratic"] + estimate["digits_mlp"])
    assert predict(config(), workers=9).seconds_per_outer_step == pytest.approx(estimate["digits_mlp"])
    assert [(f.family, f.shards, f.seconds) for f in alone.families] == [
        ("quadratic", 2, pytest.approx(0.08)), ("digits_mlp", 2, pytest.approx(0.4)),
    ]  # fmt: skip
    assert [f.share for f in alone.families] == pytest.approx([1 / 6, 5 / 6])


def test_only_the_shards_of_a_step_count(known: list[object]) -> None:
    some = predict(config("outer.shards_per_step=2"))
    assert some.seconds_per_outer_step == pytest.approx(0.08 + 0.4)  # on average: (0, 1) and (2, 3) in turn
    assert predict(config("outer.shards_per_step=2"), workers=2).seconds_per_outer_step == pytest.approx((0.08 + 0.4) / 2)


def test_shards_that_are_visited_more_often_count_more(known: list[object]) -> None:
    """A quadratic's estimate takes a fifth of the time: visited five times as often, both families take half of it."""
    one = config("outer.shards_per_step=1")
    fair = predict(one, rates=visit_rates(["quadratic"] * 2 + ["digits_mlp"] * 2, [0.08, 0.08, 0.4, 0.4], "time"))
    assert [f.share for f in fair.families] == pytest.approx([0.5, 0.5], abs=0.05)
    assert fair.seconds_per_outer_step == pytest.approx(0.08 * 5 / 6 + 0.4 / 6, rel=0.05)


def test_bytes_are_those_of_all_shards_and_of_every_worker_at_work(known: list[object]) -> None:
    data = sum(value.numel() * value.element_size() for value in shard_sources(config())[2].task(0, 0).shared.values())
    for workers in (1, 3):
        assert predict(config(), workers=workers).bytes == 4 * 2000 + workers * (data + 110)
    assert [f.bytes for f in predict(config()).families] == [4000, 4000]


def test_a_bucket_is_measured_once_and_the_budget_is_kept(known: list[object]) -> None:
    many = config("tasks.0.shards=4", "tasks.1.shards=12")
    everything = predict(many)
    assert everything.buckets == everything.measured == len(known) == len(set(known))
    known.clear()
    some = predict(many, budget_s=0.0)
    assert some.measured == len(known) == 2  # one of each family
    assert some.buckets == everything.buckets
    assert some.seconds_per_outer_step == pytest.approx(everything.seconds_per_outer_step)  # here all of a family cost the same
    assert f"measured on 2 of {some.buckets} kinds of task" in some.sentence()
    assert "measured" not in everything.sentence()


def test_an_unmeasured_bucket_takes_the_most_similar_one(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def cost(learner: object, task: tasks.Task, pairs: int, threads: int, device: str) -> StepCost:
        order.append(repr(task.program))
        return StepCost(float(len(order)), 10, 0, 0, 0)

    monkeypatch.setattr(prediction, "step_cost", cost)
    monkeypatch.setattr(prediction, "_probe", lambda *_: (False, 1.0))
    monkeypatch.setattr(prediction.time, "monotonic", iter([0.0, *[1.0] * 2, *[99.0] * 99]).__next__)  # time for three
    weights = {}

    def count(family: tasks.Family, template: str) -> float:
        return weights.setdefault((family.name, template), float(10 ** len(weights)))

    monkeypatch.setattr(prediction, "template_cost", count)
    costs = shard_costs(config("tasks.0.shards=1", "tasks.1.shards=4"), budget_s=10.0)
    assert [cost.measured for cost in costs] == [True, True, True, True, False]
    assert costs[4].seconds == costs[3].seconds == 4 * 4.0  # its weights are the next ones
    assert costs[4].template != costs[3].template


def test_an_estimator_of_whole_runs_takes_the_longest_horizon() -> None:
    learner, source = learners.get("learnable_adam"), shard_sources(config())[0]
    for name, expected in (("pes", False), ("truncated_es", False), ("full_es", True)):
        recipe = config(f"outer.estimator.name={name}").outer.estimator.recipe
        whole, overhead = prediction._probe(recipe, learner, source, 2, 1e-9, "cpu")
        assert whole is expected
        assert overhead > 1.0
    assert prediction._longest((8, 64), 10**9) == pytest.approx(64.0)
    assert prediction._longest((8, 64), 1) == pytest.approx((8 * 64) ** 0.5)
    assert prediction._longest((50, 50), 4) == 50.0


def test_a_real_run_is_of_that_order() -> None:
    run = config()
    found = predict(run)
    recipe, learner = run.outer.estimator.recipe, make_learner(run)
    theta = learner.init_theta(0)
    estimators = [recipe.build(learner, source, 2, stable_hash(i), "cpu", False) for i, source in enumerate(shard_sources(run))]
    for estimator in estimators:
        estimator.estimate(theta, 0)
    begin = time.perf_counter()
    for step in (1, 2, 3):
        for estimator in estimators:
            estimator.estimate(theta, step)
    assert 0.1 < found.seconds_per_outer_step / ((time.perf_counter() - begin) / 3) < 10
    assert found.bytes > 4 * 2 * 2 * 4 * 1000


def test_the_sentence_is_for_people() -> None:
    made = Prediction(2.4, 720.0, 300 * 2**20, (), 5, 5, 2)
    assert made.sentence() == "about 12 min and 300 MiB: 300 outer steps of 2.4 s on 2 workers"
    assert Prediction(0.05, 5.0, 3 * 2**30, (), 5, 4, 1).sentence() == (
        "about 5 s and 3.0 GiB: 100 outer steps of 0.05 s on 1 worker (measured on 4 of 5 kinds of task)"
    )
    assert [prediction._duration(s) for s in (0.123, 61.0, 130.0, 8000.0, 100000.0, 3e6)] == [
        "0.12 s", "61 s", "2.2 min", "2.2 h", "28 h", "35 d",
    ]  # fmt: skip
