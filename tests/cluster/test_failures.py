"""Failures end a run when one environment fails again and again, or all of them too often; else they are only counted."""

import pytest

from metaopt.cluster.failures import FailureBudget
from metaopt.errors import WorkerLostError


def test_three_in_a_row_name_the_environment_and_its_seeds():
    budget = FailureBudget(100)
    budget.fail({2: 11}, "first")
    budget.fail({2: 12}, "second")
    with pytest.raises(WorkerLostError, match=r"^environment 2 failed 3 times in a row, last: third; .* seeds 11, 12, 13$"):
        budget.fail({2: 13}, "third")


def test_an_episode_in_between_forgives():
    budget = FailureBudget(100)
    for seed in range(10):
        budget.fail({0: seed}, "again")
        budget.fail({0: seed + 100}, "again")
        budget.complete(0)
        budget.complete(1)


def test_other_environments_do_not_forgive():
    budget = FailureBudget(100)
    for seed in range(2):
        budget.fail({0: seed}, "again")
        budget.complete(1)
    with pytest.raises(WorkerLostError, match="environment 0 failed 3 times"):
        budget.fail({0: 2}, "again")


def test_a_lost_process_is_one_failure_of_all_it_held():
    budget = FailureBudget(2)
    budget.fail({0: 1, 1: 2, 2: 3}, "died")
    budget.fail({0: 4, 1: 5, 2: 6}, "died")
    budget.complete(0)
    with pytest.raises(
        WorkerLostError, match=r"environment 1 \(in one process with environments 0, 2\) failed 3 times in a row, last: died"
    ):
        budget.fail({0: 7, 1: 8, 2: 9}, "died")


@pytest.mark.parametrize(("limit", "step", "allowed"), [(0, 1, 0), (3, 1, 3), (3, 400, 10_000), (2, 400, 2)])
def test_the_rate_is_of_any_thousand_steps(limit, step, allowed):
    """A failure every 400 steps is at most 3 in a window of 1000."""
    budget = FailureBudget(limit)
    for failure in range(allowed):
        budget.step(step)
        budget.fail({failure: 0}, "now and then")
    if allowed < 100:
        budget.step(step)
        with pytest.raises(WorkerLostError, match=rf"failed {limit + 1} times in \d+ steps, last: once more; .* max_failures={limit}"):
            budget.fail({allowed: 0}, "once more")


def test_the_steps_in_the_message_are_those_of_the_window():
    budget = FailureBudget(0)
    budget.step(12)
    with pytest.raises(WorkerLostError, match="1 times in 12 steps"):
        budget.fail({0: 0}, "early")
    budget = FailureBudget(0)
    budget.step(123_456)
    with pytest.raises(WorkerLostError, match="1 times in 1000 steps"):
        budget.fail({0: 0}, "late")
