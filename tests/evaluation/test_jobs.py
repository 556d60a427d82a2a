"""Jobs over a pool: order, retries, reasons, the store in between."""

from dataclasses import dataclass, field

import pytest

from metaopt import baselines, tasks
from metaopt.baselines import CurveKey, Store
from metaopt.cluster import LocalPool
from metaopt.errors import WorkerLostError
from metaopt.evaluation.jobs import EvaluationSetup, JobRunner

SPEC = tasks.get("quadratic").sample("6x6-minimum", 3, (10, 10))


SGD = baselines.get("sgd")


def key(seed, rate=0.1):
    return CurveKey(SPEC, SGD, (SGD.at(rate),), (seed,))


@dataclass
class Flaky:
    """Fails as often as told, then answers with the job's first seed."""

    failures: int
    seen: list[int] = field(default_factory=list)

    def build(self):
        return self

    def handle(self, item):
        self.seen.append(item.attempt)
        if len(self.seen) <= self.failures:
            raise ValueError("line one\nthe reason")
        return item.payload.seeds[0]


def runner(setup, store=None, progress=None):
    return JobRunner(LocalPool(setup), store, "cpu", progress)


def test_results_come_in_the_order_of_the_jobs():
    desk = runner(Flaky(0))
    jobs = [key(seed).job() for seed in (5, 3, 9)]
    assert list(desk.run(jobs, ["a", "b", "c"], "test")) == [5, 3, 9]
    assert list(desk.seconds) == ["a", "b", "c"]


def test_a_job_is_tried_three_times_and_then_given_up_with_its_reason():
    setup = Flaky(2)
    assert list(runner(setup).run([key(1).job()], ["a"], "test")) == [1]
    assert setup.seen == [0, 1, 2]
    [reason] = runner(Flaky(99)).run([key(1).job()], ["a"], "test")
    assert reason == "the reason"


def test_one_lost_job_leaves_the_others_alone():
    results = runner(Flaky(3)).run([key(seed).job() for seed in (1, 2)], ["a", "b"], "test")
    assert list(results) == ["the reason", 2]


def test_progress_is_told_after_every_job():
    said = []
    list(runner(Flaky(0), progress=lambda *call: said.append(call)).run([key(1).job()] * 3, ["a", "b", "c"], "learners"))
    assert said == [("learners", 1, 3), ("learners", 2, 3), ("learners", 3, 3)]


def test_only_missing_curves_are_computed_and_fresh_ones_equal_stored_ones(tmp_path):
    store = Store((tmp_path,))
    first = runner(EvaluationSetup(), store)
    fresh = first.baseline_curves([key(1), key(2), key(1)], "tuning")
    assert len(fresh) == len(first.seconds) == 2
    second = runner(EvaluationSetup(), store)
    again = second.baseline_curves([key(1), key(2)], "tuning")
    assert not second.seconds, "nothing was run"
    for one in fresh:
        assert (fresh[one].heldout == again[one].heldout).all()
        assert (fresh[one].train == again[one].train).all()


def test_a_baseline_that_cannot_be_computed_ends_the_evaluation(tmp_path):
    with pytest.raises(WorkerLostError, match=r"baseline sgd failed on task \w{16}: the reason"):
        runner(Flaky(99), Store((tmp_path,))).baseline_curves([key(1)], "tuning")


def test_a_killed_build_goes_on_where_it_stopped(tmp_path):
    store = Store((tmp_path,))

    @dataclass
    class DiesAtSecond:
        count: int = 0

        def build(self):
            return self

        def handle(self, item):
            self.count += 1
            if self.count == 2:
                raise KeyboardInterrupt
            return EvaluationSetup().build().handle(item)

    keys = [key(1), key(2, rate=0.2)]
    with pytest.raises(KeyboardInterrupt):
        runner(DiesAtSecond(), store).baseline_curves(keys, "tuning")
    assert store.get(keys[0]) is not None
    assert store.get(keys[1]) is None
