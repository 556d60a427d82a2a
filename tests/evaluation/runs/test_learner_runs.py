"""Runs of learners: the same bytes however they come about, kept at once, and computed again only when something changed."""

import hashlib
import importlib
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metaopt import baselines, tasks
from metaopt.baselines import Curves, Store, evaluation_seeds, run_job
from metaopt.cluster import LocalPool, make_pool
from metaopt.evaluation.candidates import resolve
from metaopt.evaluation.runs import learner_runs
from metaopt.evaluation.runs.group_run import GroupJob, run_group
from metaopt.evaluation.runs.jobs import EvaluationSetup, JobRunner
from metaopt.evaluation.runs.learner_runs import RunsKey, groups, learner_jobs, run_store, task_curves
from tests.evaluation.own_learners import OWN, RULE, Broken, apart, scored

ROOT = Path(__file__).parents[2]
[ADAM] = resolve("adam@0.05")
[CELO] = resolve("celo2_base@start")


def desk(folder=None, setup=None, pool=None):
    runs = None if folder is None else Store((folder,))
    return JobRunner(pool or LocalPool(setup or EvaluationSetup()), Store(), "cpu", None, runs)


def computed(runner, candidate, chosen, count=5):
    """Return (task, curves) of a candidate, and how many jobs that took."""
    before = len(runner.seconds)
    together = groups(chosen)
    curves = iter(runner.learner_curves(learner_jobs(candidate, together, count, "cpu"), "learners"))
    found = {}
    for group in together:
        found |= task_curves(group, [next(curves) for _ in baselines.seed_blocks(count)], count)
    return found, len(runner.seconds) - before


def digest(found):
    parts = [
        part
        for name, curves in sorted(found.items())
        for part in (name.encode(), *(array.tobytes() for array in (curves.steps, curves.heldout, curves.train, curves.diverged)))
    ]
    return hashlib.blake2b(b"".join(parts)).hexdigest()


@dataclass
class Dies:
    """Computes, until it is interrupted at a job."""

    at: int
    count: int = 0
    worker: object = field(default_factory=lambda: EvaluationSetup().build())

    def build(self):
        return self

    def handle(self, item):
        self.count += 1
        if self.count == self.at:
            raise KeyboardInterrupt
        return self.worker.handle(item)


def test_a_group_of_one_is_a_job_of_its_own_to_the_byte():
    [task] = scored(1)
    seeds = evaluation_seeds(task.spec, 0, 5)
    alone = run_job(baselines.Job(ADAM.learner, ADAM.theta, task.spec, seeds))
    group = run_group(GroupJob(ADAM.learner, ADAM.theta, (task.spec,), (seeds,)))
    assert digest({"": alone}) == digest({"": group})


@pytest.mark.parametrize("candidate", [ADAM, CELO], ids=["adam", "celo2_base"])
def test_groups_equal_single_tasks_and_are_deterministic(candidate):
    chosen = scored(3)
    together, jobs = computed(desk(), candidate, chosen)
    assert jobs == 1
    assert digest(together) == digest(computed(desk(), candidate, chosen[::-1])[0])
    for task in chosen:
        [(_, alone)] = computed(desk(), candidate, [task])[0].items()
        np.testing.assert_allclose(together[task.name].heldout, alone.heldout, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(together[task.name].train, alone.train, rtol=1e-4, atol=1e-6)
        assert (together[task.name].diverged == alone.diverged).all()
    assert len({together[task.name].heldout.tobytes() for task in chosen}) == 3, "each task has its own curves"


def test_groups_are_a_matter_of_the_suite():
    alike, other, longer = scored(10), scored(2, "15x3-none"), scored(1, horizon=20)
    quiet = [replace(task, name=f"quiet-{task.name}", kinds=("policy",)) for task in scored(2)]
    found = groups([*alike, *other, *[replace(task, name="longer") for task in longer], *quiet])
    assert sorted(len(group) for group in found) == [1, 2, 2, 2, learner_runs.MOST_TASKS]
    assert found == groups([*quiet, *[replace(task, name="longer") for task in longer], *other[::-1], *alike[::-1]])
    for group in found:
        assert len({(tasks.build(task.spec).program, task.spec.horizon, task.kinds) for task in group}) == 1
        assert [task.name for task in group] == sorted(task.name for task in group)


def test_a_learner_has_no_jobs_where_its_kind_cannot_run():
    chosen = [*scored(1), replace(scored(1, horizon=15)[0], name="streams", kinds=("in_context", "policy"))]
    together = groups(chosen)
    assert [job.label for job in learner_jobs(ADAM, together, 5, "cpu")] == ["adam@0.05 on 6x6-minimum-0, seeds 0 to 4"]
    policy = replace(ADAM, kind="policy", meta_seed=2)
    assert [job.label for job in learner_jobs(policy, together, 6, "cpu")] == [
        "adam@0.05 (meta-seed 2) on streams, seeds 0 to 4",
        "adam@0.05 (meta-seed 2) on streams, seeds 5 to 9",
    ]


def test_fewer_seeds_are_the_first_ones_whatever_was_known_before(tmp_path):
    chosen = scored(2)
    whole, _ = computed(desk(), ADAM, chosen, 7)
    for first in (1, 7):
        runner = desk(tmp_path / str(first))
        computed(runner, ADAM, chosen, first)
        for count in (1, 3, 5, 7):
            found, _ = computed(runner, ADAM, chosen, count)
            assert all(curves.heldout.shape[1] == count for curves in found.values())
            assert digest(found) == digest({name: curves.runs(slice(count)) for name, curves in whole.items()})
    again, jobs = computed(desk(tmp_path / "1"), ADAM, chosen, 6)
    assert jobs == 0
    assert all(curves.heldout.shape[1] == 6 for curves in again.values())


def test_a_second_learner_leaves_the_first_ones_runs_alone(tmp_path):
    chosen = apart(2)
    first, jobs = computed(desk(tmp_path), ADAM, chosen)
    assert jobs == 2
    again, jobs = computed(desk(tmp_path), ADAM, chosen)
    assert jobs == 0
    assert digest(first) == digest(again)
    assert computed(desk(tmp_path), CELO, chosen)[1] == 2
    assert computed(desk(tmp_path), replace(ADAM, name="another name", meta_seed=3), chosen)[1] == 0, "a name changes no number"


def test_an_evaluation_that_was_interrupted_computes_what_is_missing(tmp_path):
    chosen = apart(5)
    whole, jobs = computed(desk(), ADAM, chosen)
    assert jobs == 5
    with pytest.raises(KeyboardInterrupt):
        computed(desk(tmp_path, Dies(3)), ADAM, chosen)
    assert len(list(tmp_path.iterdir())) == 2
    again, jobs = computed(desk(tmp_path), ADAM, chosen)
    assert jobs == 3
    assert digest(again) == digest(whole)


def test_whatever_determines_the_numbers_is_in_the_key(monkeypatch):
    one, two = (task.spec for task in scored(2))
    seeds = evaluation_seeds(one, 0, 5)
    key = RunsKey("f" * 32, (one,), (seeds,), "cpu")
    others = [
        replace(key, learner="0" * 32),
        replace(key, specs=(two,)),
        replace(key, specs=(replace(one, horizon=13),)),
        replace(key, specs=(replace(one, values={**one.values, "shift.loss_scale": 2.0}),)),
        replace(key, seeds=(seeds[:4],)),
        replace(key, device_type="cuda"),
    ]
    texts = {key.to_json(), *(other.to_json() for other in others)}
    assert replace(key).to_json() == key.to_json()
    monkeypatch.setattr(learner_runs, "code_version", lambda *_: "changed")
    texts.add(replace(key).to_json())
    monkeypatch.setattr(torch, "__version__", "9.9")
    texts.add(replace(key).to_json())
    assert len(texts) == len(others) + 3


SOURCE = """
from dataclasses import dataclass
from metaopt.learners import GradientLearner

@dataclass(frozen=True)
class Own(GradientLearner):
    def advance(self, theta, task, carry, batch):
        theta = {"lr": FACTOR * theta["lr"]}
        return super().advance(theta, task, carry, batch)
"""


def test_a_change_of_the_users_own_code_is_noticed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    chosen, seen = scored(1), []
    for factor in ("1.0", "2.0", "1.0"):
        (tmp_path / "own_learner.py").write_text(SOURCE.replace("FACTOR", factor))
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "own_learner", raising=False)
        learner = importlib.import_module("own_learner").Own(RULE)
        found, jobs = computed(desk(tmp_path / "runs"), replace(OWN, learner=learner), chosen)
        seen.append((digest(found), jobs))
    monkeypatch.delitem(sys.modules, "own_learner")
    assert [jobs for _, jobs in seen] == [1, 1, 0]
    assert seen[0][0] == seen[2][0] != seen[1][0]


def test_a_learner_without_a_fingerprint_is_computed_every_time(tmp_path, monkeypatch):
    monkeypatch.setattr(learner_runs, "fingerprint", lambda *_: None)
    chosen = scored(1)
    runs = [computed(desk(tmp_path), ADAM, chosen) for _ in range(2)]
    assert [jobs for _, jobs in runs] == [1, 1]
    assert list(tmp_path.iterdir()) == []
    assert digest(runs[0][0]) == digest(computed(desk(), ADAM, chosen)[0])


def test_a_learner_that_raises_has_a_reason_everywhere_and_is_not_kept(tmp_path):
    broken = replace(ADAM, learner=Broken(RULE))
    found, _ = computed(desk(tmp_path), broken, scored(2), 7)
    assert found == {"6x6-minimum-0": "RuntimeError: out of order", "6x6-minimum-1": "RuntimeError: out of order"}
    assert list(tmp_path.iterdir()) == []


def test_one_failed_block_spoils_a_task():
    [group] = groups(scored(1))
    curves = Curves(np.zeros(1), np.zeros((1, 5)), np.zeros((1, 5)), np.zeros(5, bool))
    assert task_curves(group, [curves, "lost"], 7) == {group[0].name: "lost"}


def test_two_writers_do_not_disturb_each_other(tmp_path):
    [task] = scored(1)
    [job] = learner_jobs(ADAM, groups([task]), 5, "cpu")
    curves = run_group(job.job)
    stores = [Store((tmp_path,)) for _ in range(4)]
    torn = []

    def write_and_read(store):
        for _ in range(30):
            store.put(job.key, curves)
            found = store.get(job.key)
            torn.append(found is None or digest({"": found}) != digest({"": curves.stored()}))

    threads = [threading.Thread(target=write_and_read, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(torn) == 120
    assert not any(torn)
    assert len(list(tmp_path.iterdir())) == 1, "and nothing else is left behind"


def test_the_record_is_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METAOPT_CACHE", str(tmp_path))
    assert run_store().folders == (tmp_path / "runs",)


@pytest.mark.ray
def test_two_ray_workers_give_the_same_bytes(ray_session, tmp_path):
    chosen = [*scored(3), *scored(2, "15x3-none", horizon=14)]
    local, jobs = computed(desk(), CELO, chosen, 6)
    assert jobs == 4
    with make_pool(2, None, EvaluationSetup(), learner_runs.THREADS) as pool:
        assert digest(computed(desk(tmp_path, pool=pool), CELO, chosen, 6)[0]) == digest(local)
    again, jobs = computed(desk(tmp_path), CELO, chosen, 6)
    assert jobs == 0
    assert digest(again) == digest(local)


@pytest.mark.chaos
def test_a_killed_process_leaves_what_was_done(tmp_path):
    program = f"from tests.evaluation.own_learners import main; main({str(tmp_path)!r})"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in the fourth job\n"
        process.kill()
    assert len(list(tmp_path.iterdir())) == 3
    found, jobs = computed(desk(tmp_path), OWN, apart(6))
    assert jobs == 3
    assert digest(found) == digest(computed(desk(), OWN, apart(6))[0])
