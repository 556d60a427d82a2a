"""Learners whose verdict is known, through every score and statistic: nothing, everything, the reference in disguise, and a twin of it.

Curves of 12 tasks, 5 inner seeds and 3 meta-seeds, made here: each task has its own scale and speed, each seed its own start and noise.
"""

import numpy as np
import pytest

from metaopt.evaluation import (
    AXES,
    Level,
    ScoreCube,
    algoperf_score,
    constant_rate_envelope,
    degradation_curve,
    failure_rate,
    final_loss_score,
    generalization_gap,
    geometric_mean_speed_up,
    interquartile_mean,
    paired_difference,
    permutation_p_value,
    probability_of_improvement,
    reference_envelope,
    reference_fixed_score,
    reference_target,
    score_profile_band,
    score_runs,
    speed_up,
    task_times,
    time_profile_band,
    time_to_target,
    worst_decile,
)
from metaopt.evaluation.scores.speedup import CONSTANT_RATE_SMOOTHING
from metaopt.evaluation.statistics.resampling import bootstrap

TASKS, SEEDS, META, POINTS, HORIZON, CAP = 12, 5, 3, 41, 400, 10.0
STEPS = np.linspace(0.0, HORIZON, POINTS)
NAMES = ("reference", "twin", "slow", "still", "diverging")
SCORES = ("final_loss", "score", "speed_up", "constant_speed_up", "anytime", "time")


def task_curves(task, rate, meta_seed=0, seeds=range(SEEDS), horizon=HORIZON):
    """Held-out losses [E, S] that fall with exp(-rate t) from about 1 to a floor of the task."""
    steps = np.linspace(0.0, horizon, POINTS)
    floor, speed = 0.05 + 0.02 * (task % 5), rate * (1.0 + 0.1 * (task % 3))
    columns = []
    for seed in seeds:
        noise = np.random.default_rng([task, seed, meta_seed]).normal(size=POINTS)
        start = 1.0 + 0.02 * np.random.default_rng([task, seed]).normal()
        curve = floor + (start - floor) * np.exp(-speed * steps / HORIZON) + 0.003 * noise
        curve[0] = start
        columns.append(curve)
    return np.stack(columns, axis=1)


def learner_curves(name, task, meta_seed):
    """Losses [E, S] and which runs diverged [S]. The twin has the reference's speed and noise of its own."""
    diverged = np.zeros(SEEDS, dtype=bool)
    if name == "diverging":
        with np.errstate(over="ignore"):
            return np.exp(STEPS)[:, None] ** 2 * np.ones(SEEDS), ~diverged
    if name == "still":
        return np.broadcast_to(task_curves(task, 3.0)[0], (POINTS, SEEDS)), diverged
    return task_curves(task, {"slow": 1.5}.get(name, 3.0), 0 if name == "reference" else 1 + meta_seed), diverged


@pytest.fixture(scope="module")
def cubes():
    """Learner -> score -> cube; higher is better, but for times."""
    values = {name: {score: np.empty((META, TASKS, SEEDS)) for score in SCORES} for name in NAMES}
    for task in range(TASKS):
        reference = task_curves(task, 3.0)
        longer = task_curves(task, 3.0, horizon=4 * HORIZON)
        archive = np.stack([task_curves(task, rate, seeds=range(100, 105)) for rate in (1.0, 2.0, 3.0)])
        envelope = constant_rate_envelope(STEPS, archive)
        _, target = reference_target({"reference": reference[:-8]})
        for name in NAMES:
            for i in range(META):
                held, diverged = learner_curves(name, task, i)
                runs = score_runs(STEPS, held, held - 0.01, diverged, CAP)
                at = values[name]
                at["final_loss"][i, task] = -runs.final_loss
                at["anytime"][i, task] = -runs.anytime
                at["score"][i, task] = final_loss_score(runs.first_loss, runs.final_loss, reference[-1].mean(), runs.failed)
                at["time"][i, task] = np.where(runs.failed, np.inf, time_to_target(STEPS, held, target))
                for k in range(SEEDS):
                    scheduled = reference_envelope({HORIZON: (STEPS, reference[:, k]), 4 * HORIZON: (4 * STEPS, longer[:, k])})
                    for column, against, decay in (("speed_up", scheduled, 0.9), ("constant_speed_up", envelope, CONSTANT_RATE_SMOOTHING)):
                        at[column][i, task, k] = 0.0 if runs.failed[k] else speed_up(held[:, k], HORIZON, against, decay)[0]
    tasks = tuple(f"task{j:02}" for j in range(TASKS))
    return {
        name: {score: ScoreCube(table, tasks, tuple(range(SEEDS)), axes=AXES, times=score == "time") for score, table in tables.items()}
        for name, tables in values.items()
    }


def seeded():
    return np.random.default_rng(0)


def test_the_reference_in_disguise_is_exactly_itself(cubes):
    same = cubes["reference"]
    speed = bootstrap([same["speed_up"]], interquartile_mean, seeded())
    assert speed.low <= 1.0 <= speed.high
    assert speed.value == pytest.approx(1.0, abs=0.03)
    odds = bootstrap([same["final_loss"], same["final_loss"]], probability_of_improvement, seeded())
    assert odds.low <= odds.value == 0.5 <= odds.high
    assert permutation_p_value(same["final_loss"], same["final_loss"], seeded()) == 1.0


def test_a_twin_of_the_reference_is_not_called_different(cubes):
    """Same speed, noise of its own: speed-up near 1, odds around one half, no difference in score."""
    twin, reference = cubes["twin"], cubes["reference"]
    speed = bootstrap([twin["speed_up"]], interquartile_mean, seeded())
    assert speed.value == pytest.approx(1.0, abs=0.05)
    odds = bootstrap([twin["final_loss"], reference["final_loss"]], probability_of_improvement, seeded())
    assert odds.low < 0.5 < odds.high
    assert permutation_p_value(twin["final_loss"], reference["final_loss"], seeded()) > 0.05
    difference = paired_difference(twin["score"], reference["score"], seeded())
    assert difference.low < 0.0 < difference.high


def test_the_gap_of_the_reference_between_two_halves_of_the_tasks_is_none(cubes):
    scores = cubes["reference"]["score"]
    halves = [
        ScoreCube(scores.values[:, part], scores.tasks[part], scores.seeds, axes=AXES) for part in (slice(0, None, 2), slice(1, None, 2))
    ]
    gap = generalization_gap(*halves, seeded())
    assert gap.low < 0.0 < gap.high


def test_a_learner_that_does_nothing_scores_exactly_zero(cubes):
    still = cubes["still"]
    for column in ("score", "speed_up", "constant_speed_up"):
        assert (still[column].values == 0.0).all(), column
        zero = bootstrap([still[column]], interquartile_mean, seeded())
        assert (zero.low, zero.value, zero.high) == (0.0, 0.0, 0.0)
    assert np.isinf(still["time"].values).all()
    assert (score_profile_band(still["score"], np.array([0.0, 0.5]), seeded()).high == 0.0).all()


def test_a_diverging_learner_is_the_worst_everywhere(cubes):
    for score in ("final_loss", "score", "speed_up", "constant_speed_up", "anytime"):
        for aggregate in (interquartile_mean, worst_decile):
            numbers = {name: float(aggregate(cubes[name][score].values)) for name in NAMES}
            assert numbers["diverging"] == min(numbers.values()), score
    bad = cubes["diverging"]
    assert (bad["final_loss"].values == -CAP).all()
    for name in NAMES[:-1]:
        assert probability_of_improvement(bad["final_loss"].values, cubes[name]["final_loss"].values) == 0.0
        assert permutation_p_value(bad["final_loss"], cubes[name]["final_loss"], seeded()) == pytest.approx(0.1)
    assert np.isinf(bad["time"].values).all()
    reference = cubes["reference"]["time"]
    assert (time_profile_band(bad["time"], reference, np.array([1.0, 4.0]), seeded()).high == 0.0).all()
    assert failure_rate(bad["score"].values.size, bad["score"].values.size).low > 0.97


def test_benchmark_scores_put_the_field_in_order(cubes):
    times = np.stack([task_times(cubes[name]["time"].values) for name in NAMES])
    field, fixed = algoperf_score(times), reference_fixed_score(times, times[0])
    speeds = geometric_mean_speed_up(times, times[0], np.full(TASKS, float(HORIZON)))
    for scores, top in ((field, 1.0), (fixed, 1.0), (speeds, 1.0)):
        assert scores[0] == pytest.approx(top, abs=0.05)
        assert scores[1] == pytest.approx(top, abs=0.05)
        assert scores[2] <= scores[1]
        assert scores[3] == scores[4] == scores.min()
    assert field[4] == fixed[4] == 0.0


def test_a_slower_learner_is_found_slower(cubes):
    """Half the rate needs twice the steps: half the speed-up, by both references."""
    slow = cubes["slow"]
    for column in ("speed_up", "constant_speed_up"):
        speed = bootstrap([slow[column]], interquartile_mean, seeded())
        assert speed.high < 0.75
        assert speed.value == pytest.approx(0.5, abs=0.1)
    odds = bootstrap([slow["final_loss"], cubes["reference"]["final_loss"]], probability_of_improvement, seeded())
    assert odds.high < 0.1
    difference = paired_difference(slow["score"], cubes["reference"]["score"], seeded())
    assert difference.high < 0.0


def test_a_learner_that_breaks_outside_its_support_has_its_break_point(cubes):
    """The reference at home, half of the rate at twice the width, nothing at four times: below one half between 2 and 4."""
    levels = [Level("x1", 1.0, True), Level("x2", 2.0, True), Level("x4", 4.0, False)]
    found = [cubes[name]["score"] for name in ("reference", "slow", "still")]
    curve = degradation_curve("width", levels, found, "x1", seeded())
    kept = curve.retention.value[1]
    assert 0.5 < kept < 1.0
    assert curve.up.s50.value == pytest.approx(2.0 + 2.0 * (kept - 0.5) / kept)
    assert curve.up.s50.low <= curve.up.s50.value <= curve.up.s50.high < 4.0
    assert curve.up.falls_throughout
    broken = degradation_curve("width", levels, [cubes["diverging"]["score"]] * 3, "x1", seeded())
    assert (broken.score.high == 0.0).all()
