"""The rules that every pool shares: ledger, budgets, sizes, versions, and the pool inside this process."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metaopt.cluster import LocalPool, PoolStats, WorkItem, make_pool
from metaopt.cluster.ledger import Ledger, RestartBudget
from metaopt.cluster.pool import Reply, check_same_versions, check_size, fixed_threads, versions
from metaopt.errors import ConfigError, WorkerLostError
from tests.cluster.workers import AccumulatorSetup, Driver


def again(item, reason):
    return replace(item, attempt=item.attempt + 1)


def value(content=0):
    return Reply("value", content, 0.1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["value", "error", "state_missing", "lost"])), max_size=60))
def test_any_order_of_answers_gives_each_item_one_result(events):
    stats = PoolStats()
    ledger = Ledger([WorkItem(7, work_id, 0, None) for work_id in range(4)], again, stats)
    current = dict.fromkeys(range(4), 0)  # reference: the attempt that is open, None when closed
    spent = dict.fromkeys([(work_id, kind) for work_id in range(4) for kind in (True, False)], 0)
    dropped = 0
    for work_id, attempt, kind in events:
        item = WorkItem(7, work_id, attempt, None)
        answered = ledger.lose(item, 0, "x") if kind == "lost" else ledger.settle(item, Reply(kind, attempt, 0.0), 0)
        if current[work_id] != attempt:
            dropped += 1
            assert answered is None
        elif kind == "value":
            current[work_id] = None
        else:
            account = (work_id, kind == "state_missing")
            spent[account] += 1
            current[work_id] = attempt + 1 if spent[account] < 3 else None
            assert (answered is None) == (current[work_id] is None)
    assert stats.duplicates == dropped
    assert [result.item.work_id for result in ledger.results()] == [work_id for work_id in range(4) if current[work_id] is None]
    assert ledger.complete == all(attempt is None for attempt in current.values())


def test_results_come_in_work_id_order_and_once():
    stats = PoolStats()
    items = [WorkItem(0, work_id, 0, None) for work_id in (2, 0, 1)]
    ledger = Ledger(items, again, stats)
    for item in items:
        ledger.settle(item, value(item.work_id), worker=item.work_id)
        ledger.settle(item, value("late"), worker=9)
    assert [result.value for result in ledger.results()] == [0, 1, 2]
    assert stats == PoolStats(issued=3, duplicates=3)
    with pytest.raises(ValueError, match="unique"):
        Ledger([items[0], items[0]], again, stats)
    with pytest.raises(ValueError, match="next attempt"):
        Ledger(items, lambda item, reason: item, stats).lose(items[0], 0, "gone")


def test_restart_budget_has_a_window_and_backs_off():
    now = [0.0]
    budget = RestartBudget(clock=lambda: now[0])
    assert [budget.spend(0, "x") for _ in range(5)] == [0.0, 0.5, 1.0, 2.0, 4.0]
    with pytest.raises(WorkerLostError, match="worker 0 was lost 6 times in 10 minutes, last: SIGKILL"):
        budget.spend(0, "SIGKILL")
    now[0] = 600.5
    assert budget.spend(0, "x") == 600.5


def test_local_pool_runs_recovers_and_quarantines():
    with make_pool(0, None, AccumulatorSetup()) as pool:
        driver = Driver(3)
        driver.step(pool, 0)
        results = driver.step(pool, 1)
        expected = sum(torch.linspace(0.0, 1.0 + step, 1000) * 1.01 ** (1 - step) for step in range(2))
        torch.testing.assert_close(results[2].value["total"], expected * 3)
        assert pool.stats == PoolStats(issued=6)

        pool.close()
    with LocalPool(AccumulatorSetup()) as fresh:  # knows no shard: every item is recovered from the driver's states
        recovered = driver.step(fresh, 2)
        assert driver.reasons == [(0, "state_missing"), (1, "state_missing"), (2, "state_missing")]
        assert [result.item.attempt for result in recovered] == [1, 1, 1]
        results = driver.step(fresh, 3, {1: {"always": "raise"}})
        assert results[1].error.count("ArithmeticError: planted in item 1") == 3
        assert [results[0].error, results[2].error] == [None, None]
        assert fresh.stats.quarantined == 1
        stubborn = fresh.run(driver.items(4, fresh.share(torch.ones(1000)), {0: {"always": "missing"}}), lambda item, reason: None)
        assert "never there" in stubborn[0].error


def test_an_error_is_tried_again_and_succeeds(tmp_path):
    pool, driver = LocalPool(AccumulatorSetup()), Driver(2)
    results = driver.step(pool, 0, {1: {"fault": "raise", "marker": str(tmp_path / "once")}})
    assert [result.error for result in results] == [None, None]
    assert results[1].item.attempt == 1
    assert driver.reasons == [(1, "error")]


@dataclass
class Keeper:
    """Returns and keeps what it got, to show who shares memory with whom."""

    kept: list

    def handle(self, item):
        self.kept.append(item.payload["tensor"])
        return self.kept[-1]


@dataclass(frozen=True)
class KeeperSetup:
    kept: list

    def build(self):
        return Keeper(self.kept)


def test_nothing_is_shared_by_accident():
    kept, sent = [], torch.zeros(3)
    pool = LocalPool(KeeperSetup(kept))
    handle = pool.share(sent)
    result = pool.run([WorkItem(0, 0, 0, {"tensor": sent})], again)[0].value
    sent += 1
    result += 2
    assert torch.equal(kept[0], torch.zeros(3))
    assert torch.equal(handle.get(), torch.zeros(3))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_fixed_while_working_and_restored_after(threads):
    before = torch.get_num_threads()
    with fixed_threads(3):
        results = Driver(1).step(LocalPool(AccumulatorSetup(), threads=threads), 0)
        assert results[0].value["threads"] == threads
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


def test_messages_have_a_limit():
    message = {"a": [torch.zeros(100), "x" * 50], "b": (b"y" * 50, WorkItem(0, 0, 0, torch.zeros(25)))}
    check_size(message, "it", limit_bytes=700)
    with pytest.raises(ConfigError, match=r"it carries 0\.0 MiB, at most 0\.0 MiB .* Pool.share"):
        check_size(message, "it", limit_bytes=590)
    check_size(LocalPool(AccumulatorSetup()).share(torch.zeros(10_000)), "a handle", limit_bytes=100)


def test_version_skew_is_named():
    check_same_versions(versions(), versions(), "worker 3")
    assert set(versions()) == {"metaopt", "torch", "python"}
    with pytest.raises(ConfigError, match=r"worker 3 runs torch 1.0 \(driver: .*\), python none \(driver: "):
        check_same_versions(versions(), {"metaopt": versions()["metaopt"], "torch": "1.0"}, "worker 3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, None), "workers must be >= 0, got -1"),
        ((0, "auto"), "address 'auto' needs workers >= 1"),
        ((1, None, 0), "threads must be >= 1, got 0"),
    ],
)
def test_bad_numbers_are_refused(arguments, message):
    workers, address, *threads = arguments
    with pytest.raises(ConfigError, match=message):
        make_pool(workers, address, AccumulatorSetup(), *threads)


def test_every_result_arrives_once_when_it_is_settled():
    stats, told = PoolStats(), []
    items = [WorkItem(0, work_id, 0, None) for work_id in (2, 0, 1)]
    ledger = Ledger(items, again, stats, told.append)
    ledger.settle(items[0], value("two"), worker=0)
    assert [result.value for result in told] == ["two"]
    ledger.settle(items[0], value("late"), worker=1)
    for attempt in range(3):
        ledger.lose(WorkItem(0, 0, attempt, None), 0, "gone")
    ledger.settle(items[2], value("one"), worker=1)
    assert [(result.item.work_id, result.value, result.error is None) for result in told] == [
        (2, "two", True),
        (0, None, False),
        (1, "one", True),
    ]
    assert sorted(told, key=lambda result: result.item.work_id) == ledger.results()


def test_items_that_may_go_anywhere_keep_the_order_given():
    kept, told = [], []
    pool, items = LocalPool(KeeperSetup(kept)), [WorkItem(0, work_id, 0, {"tensor": work_id}) for work_id in (2, 0, 1)]
    results = pool.run(items, again, told.append, anywhere=True)
    assert kept == [result.value for result in told] == [2, 0, 1]
    assert [result.value for result in results] == [0, 1, 2]
    pool.run(items, again)
    assert kept[3:] == [0, 1, 2]


def test_what_arrived_raises_ends_the_run_and_leaves_the_pool_well():
    kept = []
    pool, items = LocalPool(KeeperSetup(kept)), [WorkItem(0, work_id, 0, {"tensor": work_id}) for work_id in range(3)]

    def full(result):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        pool.run(items, again, full)
    assert kept == [0]
    assert len(pool.run(items, again)) == 3
