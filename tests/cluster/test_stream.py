"""A stream of items: every one of them once, in the order of arrival, whatever happens to workers. On Ray and in this process."""

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from metaopt.cluster import LocalPool, Reason, WorkItem, WorkResult, make_pool, ray_pool
from metaopt.errors import ConfigError, WorkerLostError


@dataclass(frozen=True)
class Echo:
    """Answers with its payload; faults happen once each, where their marker says that they have not yet."""

    def build(self) -> "Echo":
        return self

    def handle(self, item: WorkItem) -> Any:
        payload = item.payload
        if (wait := payload.get("wait")) is not None:
            deadline = time.monotonic() + 60
            while not Path(wait).exists() and time.monotonic() < deadline:
                time.sleep(0.01)
        marker = payload.get("marker")
        if payload.get("fault") and (marker is None or not Path(marker).exists()):
            if marker is not None:
                Path(marker).touch()
            if payload["fault"] == "kill":
                os.kill(os.getpid(), 9)
            raise ArithmeticError("planted")
        return {"id": item.work_id, "attempt": item.attempt, "pid": os.getpid()}


def again(item: WorkItem, reason: Reason) -> WorkItem:
    return replace(item, attempt=item.attempt + 1)


def source(extra: dict[int, dict[str, Any]] | None = None, issued: list[int] | None = None) -> Callable[[], WorkItem]:
    numbers = itertools.count()

    def give() -> WorkItem:
        number = next(numbers)
        if issued is not None:
            issued.append(number)
        return WorkItem(3, number, 0, (extra or {}).get(number, {}))

    return give


def take(results: Iterator[WorkResult], count: int) -> list[WorkResult]:
    return list(itertools.islice(results, count))


def take_until(results: Iterator[WorkResult], wanted: set[int]) -> list[WorkResult]:
    """Results up to the last one wanted; a minute is enough for anything."""
    deadline, taken = time.monotonic() + 60, []
    while wanted - {result.item.work_id for result in taken} and time.monotonic() < deadline:
        taken.append(next(results))
    return taken


def test_in_this_process_an_item_is_issued_when_its_result_is_asked_for() -> None:
    issued: list[int] = []
    pool = LocalPool(Echo())
    stream = pool.stream(source({1: {"fault": "raise"}}, issued), again)
    assert issued == []
    results = take(stream, 3)
    assert [(result.item.work_id, result.error is None) for result in results] == [(0, True), (1, False), (2, True)]
    assert issued == [0, 1, 2]
    assert results[1].error is not None
    assert results[1].error.count("ArithmeticError: planted") == 3
    assert (pool.stats.issued, pool.stats.reissued, pool.stats.quarantined) == (3, 2, 1)


@pytest.fixture(scope="module")
def two(ray_session: object) -> Iterator[ray_pool.RayPool]:
    with make_pool(2, None, Echo()) as pool:
        assert isinstance(pool, ray_pool.RayPool)
        yield pool


@pytest.fixture
def workers(two: ray_pool.RayPool) -> ray_pool.RayPool:
    for slot in two._slots:
        slot.budget = ray_pool.RestartBudget()
    return two


@pytest.mark.ray
def test_each_item_arrives_once_and_workers_have_one_ahead(workers: ray_pool.RayPool, tmp_path: Path) -> None:
    issued: list[int] = []
    stream = workers.stream(source({0: {"wait": str(tmp_path / "go")}}, issued), again)
    results = take(stream, 10)
    (tmp_path / "go").touch()  # one worker alone could be faster than the other one comes to work at all
    results += take_until(stream, {0})
    assert len({result.item.work_id for result in results}) == len(results)
    assert len({result.value["pid"] for result in results}) == 2
    assert len(results) <= len(issued) <= len(results) + 4
    stream.close()  # type: ignore[attr-defined]
    driver_items = [WorkItem(4, number, 0, {}) for number in range(4)]
    assert [result.value["id"] for result in workers.run(driver_items, again)] == [0, 1, 2, 3]


@pytest.mark.ray
def test_a_slow_item_holds_up_nobody_else(workers: ray_pool.RayPool, tmp_path: Path) -> None:
    stream = workers.stream(source({0: {"wait": str(tmp_path / "go")}}), again)
    first = take(stream, 6)
    # The one behind the slow item waits with it, by design.
    assert 0 not in {result.item.work_id for result in first}
    (tmp_path / "go").touch()
    later = take_until(stream, {0})
    assert later[-1].item.work_id == 0
    assert max(Counter(result.item.work_id for result in first + later).values()) == 1


@pytest.mark.ray
def test_a_killed_worker_costs_its_item_an_attempt_and_the_one_behind_it_none(workers: ray_pool.RayPool, tmp_path: Path) -> None:
    restarts = workers.stats.restarts
    deadly = {"fault": "kill", "marker": str(tmp_path / "dead"), "wait": str(tmp_path / "go")}
    stream = workers.stream(source({2: deadly}), again)
    results = take(stream, 6)  # by then the results before it have arrived, which could die with the worker
    (tmp_path / "go").touch()
    results += take_until(stream, set(range(12)) - {result.item.work_id for result in results})
    found = {result.item.work_id: result for result in results}
    assert len(found) == len(results), "each of them once"
    assert found[2].error is None
    assert found[2].item.attempt == 1
    assert [number for number, result in found.items() if result.item.attempt] == [2]
    assert workers.stats.restarts == restarts + 1


@pytest.mark.slow
@pytest.mark.ray
def test_poison_is_quarantined_and_the_stream_goes_on(workers: ray_pool.RayPool) -> None:
    results = take_until(workers.stream(source({1: {"fault": "kill"}, 4: {"fault": "raise"}}), again), set(range(8)))
    found = {result.item.work_id: result for result in results}
    assert sorted(number for number, result in found.items() if result.error is not None) == [1, 4]
    assert found[1].error is not None
    assert found[1].error.count("was lost: ActorDiedError") == 3
    assert found[4].error is not None
    assert found[4].error.count("ArithmeticError: planted") == 3


@pytest.mark.slow
@pytest.mark.ray
def test_the_restart_budget_ends_a_stream(ray_session: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaopt.cluster.ledger.MAX_RESTARTS", 1)
    with make_pool(1, None, Echo()) as pool, pytest.raises(WorkerLostError, match="worker 0 was lost 2 times in 10 minutes"):
        take(pool.stream(source({number: {"fault": "kill"} for number in range(9)}), again), 5)


@pytest.mark.ray
def test_a_run_after_a_stream_that_was_left_gets_its_own_results(workers: ray_pool.RayPool, tmp_path: Path) -> None:
    stream = workers.stream(source({0: {"wait": str(tmp_path / "go")}, 1: {"wait": str(tmp_path / "go")}, 2: {}}), again)
    (tmp_path / "go").touch()
    assert take(stream, 1)[0].error is None
    stream.close()  # type: ignore[attr-defined]
    results = workers.run([WorkItem(9, 0, 0, {}), WorkItem(9, 1, 0, {})], again, anywhere=True)
    assert [(result.item.outer_step, result.value["id"]) for result in results] == [(9, 0), (9, 1)]


@pytest.mark.ray
def test_a_payload_that_is_too_large_is_refused(workers: ray_pool.RayPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaopt.cluster.pool.MAX_MESSAGE_BYTES", 10)

    def check(message: Any, name: str) -> None:
        from metaopt.cluster.pool import check_size

        check_size(message, name, limit_bytes=10)

    monkeypatch.setattr("metaopt.cluster.ray_stream.check_size", check)
    with pytest.raises(ConfigError, match=r"^work item 0 of outer step 3 carries"):
        take(workers.stream(source({0: {"text": "x" * 100}}), again), 1)
