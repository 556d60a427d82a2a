"""Late generalisation: moments of curves written by hand, what never comes, runs on their own."""

import numpy as np
import pytest

from metaopt.evaluation.scores.late_generalisation import THRESHOLD, late_generalisation

INF = np.inf
STEPS = np.array([0.0, 10.0, 20.0, 30.0, 40.0])
RUNS = {  # training losses, held-out losses; t_fit, t_gen, gap, ratio, peak
    "late": ([1.0, 0.05, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 1.0, 0.05], (10.0, 40.0, 30.0, 4.0, 20.0)),
    "never": ([1.0, 0.5, 0.04, 0.0, 0.0], [1.0, 1.5, 2.0, 2.5, 3.0], (20.0, INF, INF, INF, 40.0)),
    "at once": ([1.0, 0.3, 0.01, 0.0, 0.0], [1.0, 0.3, 0.01, 0.0, 0.0], (20.0, 20.0, 0.0, 1.0, 0.0)),
    "neither": ([1.0, 0.9, 0.8, 0.7, 0.6], [1.0, 1.1, 0.9, 0.8, 0.8], (INF, INF, INF, INF, 10.0)),
    "solved already": ([0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 0.5, 0.0, 0.0, 0.0], (0.0, 20.0, 20.0, 20.0, 0.0)),
    "held-out only": ([0.3, 0.2, 0.1, 0.1, 0.1], [0.2, 0.1, 0.01, 0.0, 0.0], (INF, 20.0, -INF, 0.0, 0.0)),
    "comes and goes": ([1.0, 0.01, 0.9, 0.01, 0.0], [1.0, 0.9, 0.01, 0.9, 0.01], (10.0, 20.0, 10.0, 2.0, 0.0)),
    "not a number": ([1.0, 0.9, np.nan, np.nan, np.nan], [1.0, 1.2, np.nan, np.nan, np.nan], (INF, INF, INF, INF, 20.0)),
}


def moments(train, heldout, threshold=THRESHOLD):
    found = late_generalisation(STEPS, np.asarray(train, float), np.asarray(heldout, float), threshold)
    return np.stack([found.t_fit, found.t_gen, found.gap, found.ratio, found.peak])


@pytest.mark.parametrize("name", RUNS)
def test_moments_of_one_run(name: str) -> None:
    train, heldout, want = RUNS[name]
    np.testing.assert_array_equal(moments(np.array(train)[:, None], np.array(heldout)[:, None])[:, 0], want)


def test_runs_side_by_side_are_runs_alone() -> None:
    train, heldout = (np.array([run[i] for run in RUNS.values()], float).T for i in (0, 1))
    np.testing.assert_array_equal(moments(train, heldout), np.array([run[2] for run in RUNS.values()]).T)


def test_a_higher_threshold_is_reached_no_later() -> None:
    rng = np.random.default_rng(0)
    train, heldout = (np.cumprod(rng.uniform(0.2, 1.3, (5, 40)), axis=0) for _ in range(2))
    strict, loose = moments(train, heldout, 0.05), moments(train, heldout, 0.3)
    assert (loose[:2] <= strict[:2]).all()
    assert np.isinf(strict[1]).any()
    assert np.isfinite(loose[1]).any()
    np.testing.assert_array_equal(loose[4], strict[4])  # the peak knows no threshold


def test_the_default_threshold_is_a_twentieth() -> None:
    just, below = np.full((5, 1), 0.05), np.full((5, 1), 0.0501)
    assert THRESHOLD == 0.05
    assert moments(just, just)[0, 0] == 0.0
    assert moments(below, below)[0, 0] == INF


@pytest.mark.parametrize(
    ("steps", "train", "heldout", "threshold", "words"),
    [
        (STEPS, np.ones((4, 2)), np.ones((5, 2)), 0.05, "must be"),
        (STEPS, np.ones((0, 2)), np.ones((5, 2)), 0.05, "must be"),  # only held-out losses were kept
        (STEPS[:4], np.ones((5, 2)), np.ones((5, 2)), 0.05, "must be"),
        (STEPS, np.ones(5), np.ones(5), 0.05, "must be"),
        (STEPS[:0], np.ones((0, 2)), np.ones((0, 2)), 0.05, "E >= 1"),
        (STEPS, np.ones((5, 2)), np.ones((5, 2)), 0.0, "threshold must be > 0, got 0.0"),
        (STEPS, np.ones((5, 2)), np.ones((5, 2)), np.nan, "threshold must be > 0, got nan"),
    ],
)
def test_curves_that_do_not_fit_are_refused(steps, train, heldout, threshold, words) -> None:
    with pytest.raises(ValueError, match=words):
        late_generalisation(steps, train, heldout, threshold)
