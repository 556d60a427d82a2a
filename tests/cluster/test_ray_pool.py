"""The Ray pool gives the same bytes as the pool in this process, and goes on when its workers are killed."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from metaopt.cluster import LocalPool, WorkItem, make_pool, pool, ray_pool
from metaopt.errors import ConfigError, WorkerLostError
from tests.cluster.workers import AccumulatorSetup, Driver, FailingSetup

pytestmark = pytest.mark.ray

SHARDS = 5
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two_workers(ray_session):
    """Two workers of one thread, shared by the tests that leave them able to work."""
    with make_pool(2, None, AccumulatorSetup()) as shared_pool:
        yield shared_pool


@pytest.fixture
def budget(two_workers):
    """Fresh restart budgets, for each test kills on its own account."""
    for slot in two_workers._slots:
        slot.budget = ray_pool.RestartBudget()
    return two_workers


def totals(any_pool, steps=3, faults=None):
    """Return every shard's value after `steps` outer steps, with `faults[step][shard]` planted, and the driver."""
    driver = Driver(SHARDS)
    for step in range(steps):
        results = driver.step(any_pool, step, (faults or {}).get(step))
        assert [result.item.work_id for result in results] == list(range(SHARDS))
        assert [result.error for result in results] == [None] * SHARDS
    return torch.stack([driver.states[shard][1] for shard in range(SHARDS)]), driver


def test_equal_bytes_and_affinity(two_workers):
    expected, _ = totals(LocalPool(AccumulatorSetup()))
    actual, driver = totals(two_workers)
    assert torch.equal(actual, expected)
    assert driver.reasons == []
    results = driver.step(two_workers, 3)
    assert [result.worker for result in results] == [shard % 2 for shard in range(SHARDS)]
    assert len({result.value["pid"] for result in results}) == 2
    assert all(result.value["threads"] == 1 and result.seconds > 0 for result in results)


def test_a_killed_worker_changes_nothing(budget, tmp_path):
    expected, _ = totals(LocalPool(AccumulatorSetup()))
    restarts = budget.stats.restarts
    faults = {step: {shard: {"fault": "kill", "marker": str(tmp_path / f"{step}{shard}")}} for step, shard in ((1, 3), (2, 0))}
    actual, driver = totals(budget, faults=faults)
    assert torch.equal(actual, expected)
    assert [reason for reason in driver.reasons if reason[1] == "lost"] == [(3, "lost"), (0, "lost")]
    assert budget.stats.restarts == restarts + 2


def test_a_worker_killed_from_outside_between_steps(budget):
    _, driver = totals(budget, steps=1)
    victim = driver.step(budget, 1)[1].value["pid"]
    os.kill(victim, signal.SIGKILL)
    results = driver.step(budget, 2)
    assert all(result.error is None for result in results)
    assert victim not in {result.value["pid"] for result in results}


def test_poison_is_quarantined_and_nothing_else(budget):
    driver = Driver(SHARDS)
    extra = {1: {"always": "kill"}, 2: {"always": "raise"}, 3: {"always": "unserialisable"}, 4: {"always": "missing"}}
    results = driver.step(budget, 0, extra)
    assert [result.error is None for result in results] == [True, False, False, False, False]
    assert results[1].error.count("was lost: ActorDiedError") == 3
    assert results[2].error.count("ArithmeticError: planted in item 2") == 3
    assert "Traceback" in results[2].error
    assert "pickle" in results[3].error
    assert results[4].error.count("never there") == 3
    assert budget.stats.quarantined >= 4
    totals(budget, steps=1)


def test_restart_budget_ends_the_run(ray_session, monkeypatch):
    monkeypatch.setattr("metaopt.cluster.ledger.MAX_RESTARTS", 1)
    with make_pool(1, None, AccumulatorSetup()) as small, pytest.raises(WorkerLostError, match="worker 0 was lost 2 times in 10 minutes"):
        Driver(1).step(small, 0, {0: {"always": "kill"}})


def test_answers_to_an_abandoned_run_are_dropped(two_workers):
    def broken(item, reason):
        raise KeyError("recover")

    before = two_workers.stats.duplicates
    items = [WorkItem(1, 0, 0, {"always": "raise"}), WorkItem(0, 1, 0, {"theta": two_workers.share(torch.ones(1000))})]
    with pytest.raises(KeyError):
        two_workers.run(items, broken)
    expected, _ = totals(LocalPool(AccumulatorSetup()), steps=2)
    assert torch.equal(totals(two_workers, steps=2)[0], expected)
    assert two_workers.stats.duplicates in (before, before + 1)  # it may have arrived before the run was abandoned


def test_results_arrive_once_and_free_workers_take_what_may_go_anywhere(budget, tmp_path):
    told = []
    driver = Driver(7)
    items = driver.items(0, budget.share(torch.ones(1000)), {2: {"fault": "kill", "marker": str(tmp_path / "k")}, 4: {"always": "raise"}})
    results = budget.run(items[::-1], driver.recover, told.append, anywhere=True)
    assert [result.item.work_id for result in results] == list(range(7))
    assert sorted(result.item.work_id for result in told) == list(range(7))
    assert all(any(result is other for other in results) for result in told)
    assert [result.error is None for result in results] == [True] * 4 + [False] + [True] * 2
    assert told[0].item.work_id in (5, 6), "the first ones given are the first ones at work"

    def full(result):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        budget.run(items[:2], driver.recover, full, anywhere=True)
    assert torch.equal(totals(budget)[0], totals(LocalPool(AccumulatorSetup()))[0])


def test_shared_objects_are_snapshots_and_are_freed(two_workers):
    import ray

    theta = torch.zeros(1000)
    handle = two_workers.share(theta)
    theta += 1
    results = two_workers.run([WorkItem(0, 0, 0, {"theta": handle})], lambda item, reason: None)
    assert results[0].value["sum"] == 0
    with pytest.raises(ConfigError, match=r"work item 7 .* carries 8\.0 MiB"):
        pool.check_size(torch.zeros(1 << 20, dtype=torch.float64), "work item 7 of outer step 0", limit_bytes=1 << 20)
    key = handle.reference.hex().encode()
    counts = ray._private.worker.global_worker.core_worker.get_all_reference_counts
    assert key in counts()
    del handle, results
    gc.collect()
    assert key not in counts()


def test_refusals_come_before_any_work(ray_session, monkeypatch):
    with pytest.raises(ConfigError, match="9 workers of 1 CPUs do not fit: the cluster has 4 CPUs on 1 nodes"):
        make_pool(9, None, AccumulatorSetup())
    with pytest.raises(ConfigError, match="2 workers of 3 CPUs do not fit"):
        make_pool(2, None, AccumulatorSetup(), threads=3)
    with pytest.raises(ConfigError, match="device 'cuda': the cluster has no GPU"):
        make_pool(1, None, AccumulatorSetup(), device="cuda")
    with pytest.raises(ConfigError, match="planted"):
        make_pool(1, None, FailingSetup(ConfigError("planted")))
    with pytest.raises(WorkerLostError, match=r"worker 0 could not start: .*planted"):
        make_pool(1, None, FailingSetup(ValueError("planted")))
    monkeypatch.setattr(ray_pool, "versions", lambda: {**pool.versions(), "torch": "1.0"})
    with pytest.raises(ConfigError, match=r"worker 0 runs torch .* \(driver: 1\.0\)"):
        make_pool(1, None, AccumulatorSetup())


def test_a_dead_address_is_refused_quickly():
    script = """
from metaopt.cluster import make_pool
from tests.cluster.workers import AccumulatorSetup
try:
    make_pool(1, "127.0.0.1:1", AccumulatorSetup())
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout.startswith("ConfigError no Ray cluster answers at '127.0.0.1:1'"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["close", "kill"])
def test_a_private_ray_leaves_no_process(ending):
    script = """
import os, signal, sys
from metaopt.cluster import make_pool
from tests.cluster.workers import AccumulatorSetup, Driver
def mine(number, frame): pass
signal.signal(signal.SIGTERM, mine)
pool = make_pool(2, None, AccumulatorSetup(), threads=2)
assert signal.getsignal(signal.SIGTERM) is mine
assert os.environ["RAY_AUTH_MODE"] == "token" and len(os.environ["RAY_AUTH_TOKEN"]) == 64
results = Driver(4).step(pool, 0)
assert all(result.value["threads"] == 2 for result in results), results
print(*(result.value["pid"] for result in results), flush=True)
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
pool.close()
pool.close()
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, ending], capture_output=True, text=True, timeout=120, env=environment, cwd=ROOT)
    assert done.returncode == (0 if ending == "close" else -signal.SIGKILL), done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(set(pids)) == 2
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
