"""Results that nobody measured, rich in what reports stumble over: failures, missing and infinite values, long and hostile names."""

from functools import cache

import numpy as np

from metaopt.baselines import Curves
from metaopt.evaluation.tables.results import Results, TaskCurves, make_table
from metaopt.tasks import get

SPEC = get("quadratic").sample("6x6-minimum", 3, (40, 40))
LEARNERS = {"celo2-base": 0.8, "<script>": 1.15, "a_learner_with_a_very_long_name_$x_1$_seed=3": 0.35}
BASELINES = {"adamw": 1.0, "nadam": 0.97, "sgd": 0.7, "sgd_momentum": 0.85}
TRIALS = {1: 0.6, 5: 0.9, 15: 1.0}
TASKS = (
    "autoencoder",
    "byte_transformer_lm",
    "digits_conv",
    "digits_mlp",
    "noisy_quadratic",
    "regression_tables",
    "rnn",
    "vision_of_textures",
)
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 16.0)
ACTIVATIONS = ("relu", "silu", "tanh", "gelu", "leaky_relu", "sine")
SEEDS = 5
LINES = [(name, "learner", 1) for name in LEARNERS] + [(name, "baseline", trials) for name in BASELINES for trials in TRIALS]


def interval(name, value, width):
    return {name: value, f"{name}_low": value - width, f"{name}_high": value + width}


def strength(learner, kind, trials):
    return LEARNERS[learner] if kind == "learner" else BASELINES[learner] * TRIALS[trials]


def line_name(learner, kind, trials):
    return learner if kind == "learner" else f"{learner} K={trials}"


def falling(end, points=41, noise=0.03, seed=0):
    steps = np.linspace(0.0, 1000.0, points)
    generator = np.random.default_rng(seed)
    curve = end + (1.0 - end) * np.exp(-steps / 200.0)[:, None] + noise * generator.standard_normal((points, SEEDS)) * (steps > 0)[:, None]
    return Curves(steps, curve, curve * 0.9 - 0.02, np.zeros(SEEDS, dtype=bool))


def _line(key):
    return dict(zip(("learner", "kind", "trials"), key, strict=True))


def _scores(names, shifted):
    rows = []
    for key in LINES:
        for i, (task, base, level) in enumerate(names):
            for seed in range(SEEDS):
                score = strength(*key) * shifted(key, level) + 0.02 * seed - 0.03 * (i % 3)
                failed = key[0] == "a_learner_with_a_very_long_name_$x_1$_seed=3" and i % 4 == 1 and seed < 3
                score = 0.0 if failed else score
                rows.append(
                    _line(key)
                    | {"meta_seed": 0, "task": task, "base": base, "level": level, "family": "quadratic", "seed": seed}
                    | {"learner_hash": "f" * 16, "task_hash": f"{i:016x}", "inner_seed": 1000 + seed, "horizon_steps": 1000}
                    | {"inside_support": (i % 3 != 2) if key[0] == "celo2-base" else None}
                    | {"settings": "lr=0.03,beta1=0.9" if key[1] == "baseline" else None, "first_loss": 1.0}
                    | {"final_loss": 4.0 if failed else 1.0 - 0.8 * score, "final_train_loss": 4.0 if failed else 0.95 - 0.8 * score}
                    | {"score": score, "speed_up": min(score**2, 4.0), "censored": score > 1.2, "constant_rate_speed_up": 1.3 * score**2}
                    | {"saturated": False, "steps_to_target": 800.0 / score if score > 0.9 else None}
                    | {"anytime": 1.0 - 0.4 * score, "anytime_train": 0.9 - 0.4 * score}
                    | {"failed": failed, "reason": "diverged" if failed else None}
                )
    return make_table("scores", rows)


def _summary(scores, tasks):
    rows = []
    for key in LINES:
        mine = scores[(scores.learner == key[0]) & (scores.trials == key[2]) & (scores.kind == key[1])]
        failures = int(mine.failed.sum())
        rows.append(
            _line(key)
            | {"meta_seeds": 1, "tasks": tasks, "runs": len(mine)}
            | interval("score", mine.score.mean(), 0.07) | interval("final_loss", mine.final_loss.mean(), 0.07)
            | interval("speed_up", mine.speed_up.mean(), 0.07)
            | interval("constant_rate_speed_up", mine.constant_rate_speed_up.mean(), 0.1)
            | interval("improvement", float(np.clip(mine.score.mean() / 2, 0, 1)), 0.05)
            | {"train_loss": mine.final_train_loss.mean(), "anytime": mine.anytime.mean(), "anytime_train": mine.anytime_train.mean()}
            | {"mean_score": mine.score.mean(), "median_score": mine.score.median(), "worst_decile": mine.score.min()}
            | {"optimality_gap": float(np.maximum(0, 1 - mine.score).mean()), "censored": int(mine.censored.sum()), "saturated": 0}
            | {"failures": failures} | interval("failure_rate", failures / len(mine), 0.0)
            | {"algoperf": 0.4 if key[2] in (15,) or key[1] == "learner" else None, "algoperf_fixed": 0.5, "geometric_speed_up": 0.9}
        )  # fmt: skip
    return make_table("summary", rows)


def _tasks(scores, names):
    rows = []
    for key in LINES:
        for task, _, _ in names:
            mine = scores[(scores.learner == key[0]) & (scores.trials == key[2]) & (scores.kind == key[1]) & (scores.task == task)]
            if key[0] == "<script>" and task == "rnn":
                continue  # its kind cannot run there
            rows.append(
                _line(key)
                | {"task": task, "first_loss": 1.0, "final_loss": mine.final_loss.median(), "train_loss": mine.final_train_loss.median()}
                | {"score": mine.score.median(), "speed_up": mine.speed_up.median(), "steps_to_target": mine.steps_to_target.median()}
                | {"failures": int(mine.failed.sum()), "inside_support": mine.inside_support.iloc[0]}
            )
    return make_table("tasks", rows)


def _profile(name, taus):
    rows = []
    for key in LINES:
        centre = strength(*key)
        for tau in taus:
            share = 1 / (1 + np.exp((tau - centre) * 8)) if name == "score_profile" else 1 / (1 + np.exp(-(np.log2(tau) + centre - 1) * 3))
            rows.append(_line(key) | {"tau": tau, "value": share, "low": max(share - 0.08, 0), "high": min(share + 0.08, 1)})
    return make_table(name, rows)


def _contrasts():
    rows = []
    for learner, own in LEARNERS.items():
        for against in ("reference", *(f"{name} K=15" for name in BASELINES)):
            other = 1.0 if against == "reference" else BASELINES[against.split()[0]]
            p = 0.004 if abs(own - other) > 0.1 else 0.3
            row = {"learner": learner, "against": against, "p_value": p, "p_holm": min(1.0, 4 * p)}
            rows.append(
                row | interval("difference", own - other, 0.06) | interval("improvement", float(np.clip(0.5 + own - other, 0, 1)), 0.05)
            )
    return make_table("contrasts", rows)


def _levels(levels, shifted):
    rows = []
    for key in LINES:
        if key[1] == "baseline" and key[2] == 5:
            continue
        for i, (level, factor) in enumerate(levels):
            score, hopeless = strength(*key) * shifted(key, level), key[0] == "<script>"
            inside = (0 < i < 4) if key[0] == "celo2-base" else (i < 3 if key[0] == "<script>" else None)
            kept = interval("retention", np.nan if hopeless else shifted(key, level) ** LEARNERS.get(key[0], 1.0), 0.1)
            rows.append(_line(key) | {"level": level, "factor": factor, "inside_support": inside} | interval("score", score, 0.08) | kept)
    return make_table("levels", rows)


def _branches():
    rows = []
    for key in LINES:
        if key[1] == "baseline" and key[2] == 5:
            continue
        for direction in ("up", "down"):
            s50 = np.nan if key[0] == "<script>" else 6.0 if (key[0], direction) == ("celo2-base", "up") else np.inf
            ends = {"s50": s50, "s50_low": s50 if s50 != 6.0 else 3.5, "s50_high": np.inf if s50 == s50 else np.nan}
            rows.append(
                _line(key) | {"direction": direction} | ends | interval("slope", -0.1, 0.02) | interval("area", 0.7, 0.05)
                | {"falls_throughout": direction == "up"}
            )  # fmt: skip
    return make_table("branches", rows)


def _planning():
    methods = {"celo2-base": ("celo2_base", 20), "<script>": ("celo2_base", 1000)}
    rows = []
    for name, own in LEARNERS.items():
        method, steps = methods.get(name, ("<b>a method$_$with a very long name", 300))
        for horizon in (np.nan, 1000.0, 5000.0):
            worse = 0.2 * (horizon == 5000.0)
            row = {"method": method, "learner": name, "planning_steps": steps, "horizon_steps": horizon, "tasks": 3}
            rows.append(row | interval("score", own - worse, 0.07))
    return make_table("planning", rows)


def make(tasks=TASKS, axis=None, levels=()):
    """Return results on plain tasks, or on an axis whose levels are (name, factor) over three base tasks.

    On an axis with factors learners have planning horizons as well.
    """

    def shifted(key, level):
        factor = dict(levels).get(level)
        if factor is None:
            return 1.0 if level is None else 1.0 - 0.12 * [name for name, _ in levels].index(level) * (key[1] == "learner")
        return 1.0 - (0.2 if key[1] == "learner" else 0.03) * abs(np.log2(factor))

    names = [(f"{base}@{level}", base, level) for base in tasks for level, _ in levels] if axis else [(task, task, None) for task in tasks]
    scores = _scores(names, shifted)
    curves = {}
    for i, (task, _, level) in enumerate(names):
        drawn = {key: falling(1.0 - 0.8 * strength(*key) * shifted(key, level), seed=i) for key in LINES}
        curves[task] = TaskCurves(
            SPEC,
            "adamw@lr=0.02612,beta1=0.88",
            {key[0]: one for key, one in drawn.items() if key[1] == "learner"},
            {line_name(*key): one for key, one in drawn.items() if key[2] == 15},
        )
    failed = scores[scores.failed]
    failures = [
        dict(zip(("learner", "kind", "trials", "task", "reason"), key, strict=True)) | {"runs": len(rows)}
        for key, rows in failed.groupby(["learner", "kind", "trials", "task", "reason"])
    ]
    targets = [
        {"task": task, "family": "quadratic", "template": "6x6-minimum", "horizon_steps": 1000, "target": 0.21 if i else None}
        | {"target_by": "adamw K=15", "reference": "adamw@lr=0.02612,beta1=0.88", "kinds": "update_rule, policy"}
        for i, (task, _, _) in enumerate(names)
    ]
    tunability = [
        {
            "baseline": name,
            "trials": trials,
            "expected_loss": 0.9 - 0.5 * strength(name, "baseline", min(trials, 15)) - 0.02 * (trials == 100),
        }
        | {"score": strength(name, "baseline", trials) if trials < 100 else None}
        for name in BASELINES
        for trials in (1, 5, 15, 100)
    ]
    provenance = {
        "suite": f"axis-{axis}" if axis else "standard",
        "axis": {"name": axis, "home": "x1" if levels[0][1] else levels[0][0]} if axis else None,
        "meta_seeds": 1,
        "tasks": {name: {"hash": f"{i:016x}", "family": "quadratic", "horizon": 1000} for i, (name, _, _) in enumerate(names)},
        "learners": {name: {"hash": "f" * 16, "rule": None} for name in LEARNERS},
        "baselines": {name: {"rule": name, "schedule": "cosine", "trials": ["lr=0.01", "lr=0.03"]} for name in BASELINES},
        "seeds": SEEDS,
        "versions": {"metaopt": "0", "python": "3.11"},
    }
    return Results(
        provenance=provenance,
        notes=[
            "best rate at an end of those tried: sgd on rnn & others <b>",
            "celo2-base: no task of the suite is in its meta-training log",
        ],
        curves=curves,
        scores=scores,
        summary=_summary(scores, len(names)),
        tasks=_tasks(scores, names),
        targets=make_table("targets", targets),
        contrasts=_contrasts(),
        gaps=make_table("gaps", [{"learner": "celo2-base", "inside_tasks": 5, "outside_tasks": 3} | interval("gap", 0.21, 0.1)]),
        score_profile=_profile("score_profile", np.linspace(0.0, 1.5, 31)),
        time_profile=_profile("time_profile", 2.0 ** np.linspace(-2, 2, 25)),
        tunability=make_table("tunability", tunability),
        levels=_levels(levels, shifted) if axis else make_table("levels", []),
        branches=_branches() if axis and levels[0][1] else make_table("branches", []),
        planning=_planning() if axis and levels[0][1] else make_table("planning", []),
        failures=make_table("failures", failures),
    )


@cache
def plain():
    return make()


@cache
def small():
    return make(TASKS[:2])


@cache
def ordered():
    return make(TASKS[2:5], "width", [(f"x{factor:g}", factor) for factor in FACTORS])


@cache
def unordered():
    return make(TASKS[2:5], "activation", [(name, None) for name in ACTIVATIONS])


TIMINGS = {
    "seconds": 71.25,
    "workers": 2,
    "jobs": {"celo2-base on rnn": 3.5},
    "step_seconds": [
        {"task": task, "line": line, "seconds": 0.002 * (1 + i)} for task in TASKS[:3] for i, line in enumerate((*LEARNERS, "adamw"))
    ],
    "wall_clock": [{"learner": name, "step_ratio": 1.0 + i, "speed_up": 0.8 / (1 + i)} for i, name in enumerate(LEARNERS)],
    "load_average": [0.5, 0.4, 0.3],
}
