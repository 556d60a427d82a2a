"""Jobs over a pool: order, retries, reasons, the store in between."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from metaopt import baselines, tasks
from metaopt.baselines import CurveKey, Curves, Store
from metaopt.cluster import LocalPool
from metaopt.errors import WorkerLostError
from metaopt.evaluation.runs.jobs import EvaluationSetup, JobRunner, Wanted

SPEC = tasks.get("quadratic").sample("6x6-minimum", 3, (10, 10))


SGD = baselines.get("sgd")


def key(seed, rate=0.1):
    return CurveKey(SPEC, SGD, (SGD.at(rate),), (seed,))


@dataclass
class Flaky:
    """Fails as often as told, then answers with curves of the job's first seed."""

    failures: int
    seen: list[int] = field(default_factory=list)

    def build(self):
        return self

    def handle(self, item):
        self.seen.append(item.attempt)
        if len(self.seen) <= self.failures:
            raise ValueError("line one\nthe reason")
        return curves(item.payload.seeds[0])


def runner(setup, store=None, progress=None, runs=None):
    return JobRunner(LocalPool(setup), store, "cpu", progress, runs)


def curves(content):
    return Curves(np.array([0.0]), np.full((1, 1), content), np.full((1, 1), content), np.zeros(1, bool))


def wanted(*seeds, work=10):
    return [Wanted(f"seed {seed}", key(seed).job(), work, None) for seed in seeds]


def seen(results):
    return [one if isinstance(one, str) else one.heldout[0, 0] for one in results]


def test_results_come_in_the_order_of_the_jobs():
    desk = runner(Flaky(0))
    assert seen(desk.learner_curves(wanted(5, 3, 9), "test")) == [5, 3, 9]
    assert list(desk.seconds) == ["seed 5", "seed 3", "seed 9"]


def test_the_longest_job_goes_first():
    desk = runner(Flaky(0))
    jobs = [*wanted(5, 3, work=10), *wanted(9, work=30), *wanted(4, work=20)]
    assert seen(desk.learner_curves(jobs, "test")) == [5, 3, 9, 4]
    assert list(desk.seconds) == ["seed 9", "seed 4", "seed 5", "seed 3"]


def test_a_job_is_tried_three_times_and_then_given_up_with_its_reason():
    setup = Flaky(2)
    assert seen(runner(setup).learner_curves(wanted(1), "test")) == [1]
    assert setup.seen == [0, 1, 2]
    assert runner(Flaky(99)).learner_curves(wanted(1), "test") == ["the reason"]


def test_one_lost_job_leaves_the_others_alone():
    assert seen(runner(Flaky(3)).learner_curves(wanted(1, 2), "test")) == ["the reason", 2]


def test_progress_tells_the_work_done_before_the_first_job_and_after_each():
    said = []
    desk = runner(Flaky(0), progress=lambda *call: said.append(call))
    desk.learner_curves([*wanted(1, 2), *wanted(3, work=30)], "learners")
    assert said == [("learners", 0, 50), ("learners", 30, 50), ("learners", 40, 50), ("learners", 50, 50)]
    desk.learner_curves([], "nothing")
    assert len(said) == 4


def test_equal_keys_are_computed_once(tmp_path):
    setup = Flaky(0)
    twice = [Wanted(name, key(1).job(), 10, key(1)) for name in ("a", "b")]
    assert seen(runner(setup, runs=Store((tmp_path,))).learner_curves(twice, "test")) == [1, 1]
    assert len(setup.seen) == 1


def test_a_result_is_kept_before_the_next_job_is_done(tmp_path):
    store = Store((tmp_path,))
    said = []
    jobs = [Wanted(str(seed), key(seed).job(), 10, key(seed)) for seed in (1, 2, 3)]
    runner(Flaky(0), progress=lambda *_: said.append(len(list(tmp_path.iterdir()))), runs=store).learner_curves(jobs, "test")
    assert said == [0, 1, 2, 3]


def test_what_failed_is_tried_again_next_time(tmp_path):
    jobs = [Wanted("a", key(1).job(), 10, key(1))]
    store = Store((tmp_path,))
    assert seen(runner(Flaky(99), runs=store).learner_curves(jobs, "test")) == ["the reason"]
    assert seen(runner(Flaky(0), runs=store).learner_curves(jobs, "test")) == [1]
    assert seen(runner(Flaky(99), runs=store).learner_curves(jobs, "test")) == [1]


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_a_damaged_file_counts_as_none(tmp_path, content):
    jobs = [Wanted("a", key(1).job(), 10, key(1))]
    store = Store((tmp_path,))
    runner(Flaky(0), runs=store).learner_curves(jobs, "test")
    [path] = tmp_path.iterdir()
    sound = path.read_bytes()
    path.write_bytes(sound[:-3] if content is None else content)
    again = runner(Flaky(0), runs=store)
    assert seen(again.learner_curves(jobs, "test")) == [1]
    assert list(again.seconds) == ["a"]
    assert path.read_bytes() == sound


def test_a_folder_that_takes_nothing_costs_no_result_and_is_named_once(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    nowhere = Store((tmp_path / "file" / "runs",))
    desk = runner(Flaky(0), nowhere, runs=nowhere)
    jobs = [Wanted(str(seed), key(seed).job(), 10, key(seed)) for seed in (1, 2)]
    with caplog.at_level("WARNING"):
        assert seen(desk.learner_curves(jobs, "test")) == [1, 2]
        assert [one.heldout[0, 0] for one in desk.baseline_curves([key(3)], "tuning").values()] == [3]
    [record] = caplog.records
    assert "cannot be kept in" in record.getMessage()
    assert str(tmp_path / "file" / "runs") in record.getMessage()


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
