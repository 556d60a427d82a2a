"""Timing with tensors is timing with numbers."""

import pytest
import torch
from torch.func import vmap

from metaopt.learners.policies.run_timing import run_timing
from metaopt.learners.policies.timing import decision_steps, measured_steps

HORIZONS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 31, 32, 64, 100, 257)


def expected(horizon, decisions):
    due = decision_steps(horizon, decisions)
    measured = {step for begin, end in zip((0, *due), due, strict=False) for step in measured_steps(begin, end)}
    return set(due), measured


@pytest.mark.parametrize("decisions", [1, 2, 3, 8, 64])
def test_every_step_is_as_timing_says(decisions):
    for horizon in HORIZONS:
        t = torch.arange(horizon)
        due, measured = vmap(lambda step, end=horizon: run_timing(step, torch.tensor(end), decisions))(t)
        assert (set(t[due].tolist()), set(t[measured].tolist())) == expected(horizon, decisions), horizon


def test_horizons_of_a_stack_differ():
    horizons = torch.tensor(HORIZONS)
    for step in range(40):
        due, measured = vmap(lambda end, now=step: run_timing(torch.tensor(now), end, 8))(horizons)
        for place, horizon in enumerate(HORIZONS):
            if step < horizon:
                wanted = expected(horizon, 8)
                assert (bool(due[place]), bool(measured[place])) == (step in wanted[0], step in wanted[1])


def test_nothing_happens_past_the_end():
    for step in range(32, 80):
        due, measured = run_timing(torch.tensor(step), torch.tensor(32), 8)
        assert not due
        assert not measured


def test_long_runs_stay_exact():
    horizon, decisions = 3_000_000, 64
    due = decision_steps(horizon, decisions)
    for step in (due[1], due[40], due[63]):
        assert run_timing(torch.tensor(step), torch.tensor(horizon), decisions)[0]
        assert not run_timing(torch.tensor(step + 1), torch.tensor(horizon), decisions)[0]
        assert not run_timing(torch.tensor(step - 1), torch.tensor(horizon), decisions)[0]
