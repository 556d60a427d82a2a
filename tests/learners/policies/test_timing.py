"""Decisions are evenly spaced and measured before they are made, whatever the length of the run."""

import itertools

import pytest

from metaopt.errors import ConfigError
from metaopt.learners.policies.timing import EVERY, MOST, PROBE_STEPS, SHORTEST_SEGMENT, decision_steps, measured_steps

LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 50, 128, 131, 1000, 100_003)


def segments(total: int, decisions: int) -> list[int]:
    """Lengths of what follows each decision."""
    return [end - begin for begin, end in itertools.pairwise((*decision_steps(total, decisions), total))]


def test_by_hand() -> None:
    assert decision_steps(20, 4) == (4, 8, 12, 16)
    assert decision_steps(44, 2) == (4, 24)
    assert decision_steps(15, 64) == (4, 9), "as many as fit"
    assert decision_steps(4, 64) == (2,), "half of a short run is for looking"
    assert decision_steps(2, 64) == (1,)
    assert decision_steps(1, 64) == ()
    assert measured_steps(0, 4) == (3,), "the update before the decision"
    assert measured_steps(4, 20) == (7, 11, 15, 19), "every 4th"
    assert measured_steps(4, 105) == (28, 53, 78, 104), "at most 4, evenly spaced"
    assert measured_steps(4, 6) == (5,), "at least one"


@pytest.mark.parametrize("decisions", [1, 2, 3, 7, 32, 64, 128])
def test_decisions_are_spread_evenly_over_the_run(decisions: int) -> None:
    for total in LENGTHS:
        steps, lengths = decision_steps(total, decisions), segments(total, decisions)
        assert list(steps) == sorted(set(steps))
        assert len(steps) <= decisions
        assert all(1 <= step < total for step in steps)
        if total >= 2 * PROBE_STEPS:
            assert steps[0] == PROBE_STEPS
            assert max(lengths) - min(lengths) <= 1
            assert min(lengths) >= SHORTEST_SEGMENT
            assert len(steps) == decisions or (total - PROBE_STEPS) // len(steps) < 2 * SHORTEST_SEGMENT


@pytest.mark.parametrize("begin", [0, 4, 1001])
def test_a_decision_has_its_own_measurements(begin: int) -> None:
    for length in (*range(1, 42), 64, 100, 1563):
        end = begin + length
        steps = measured_steps(begin, end)
        gaps = [b - a for a, b in itertools.pairwise([begin - 1, *steps])]
        assert steps[-1] == end - 1
        assert len(steps) == min(MOST, max(1, length // EVERY))
        assert max(gaps) - min(gaps) <= 1
        assert min(gaps) >= min(EVERY, length)


@pytest.mark.parametrize("bad", [0, -3, 2.5, True, None, "64"])
def test_counts_must_be_counts(bad: object) -> None:
    with pytest.raises(ConfigError, match="total_steps must be an integer >= 1, got"):
        decision_steps(bad, 64)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="decisions must be an integer >= 1, got"):
        decision_steps(100, bad)  # type: ignore[arg-type]
