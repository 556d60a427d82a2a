"""report.json files of small, made-up evaluations, with numbers that are easy to follow."""

import json

LEARNER, TUNED, UNTUNED = ("mine", "learner", 1), ("adamw", "baseline", 15), ("adamw", "baseline", 1)
LINES = (LEARNER, ("adamw", "baseline", 5), TUNED, UNTUNED)


def line(key):
    return dict(zip(("learner", "kind", "trials"), key, strict=True))


def interval(name, value, width=0.05):
    if value is None or value == "inf":
        return {name: value, f"{name}_low": None if value is None else 2.5, f"{name}_high": value}
    return {name: value, f"{name}_low": round(value - width, 6), f"{name}_high": round(value + width, 6)}


def summary_row(key, score):
    names = ("final_loss", "speed_up", "constant_rate_speed_up", "improvement")
    return {
        **line(key),
        **{"meta_seeds": 1, "tasks": 2, "runs": 40, "failures": 2, "censored": 0, "saturated": 0},
        **interval("score", score),
        **{key: value for name in names for key, value in interval(name, 0.5 if name != "speed_up" else score / 2).items()},
        **{"failure_rate": 0.05, "failure_rate_low": 0.01, "failure_rate_high": 0.17, "algoperf": None},
    }


def content(suite, lines=LINES, score=0.9, **results):
    """Return the content of a report without an axis; `results` replaces tables."""
    tasks = [
        {**line(key), "task": task, "score": score - 0.1 * i, "failures": 0, "inside_support": i == 0 if key[1] == "learner" else None}
        for key in lines
        for i, task in enumerate(("digits", "text"))
    ]
    targets = [{"task": "digits", "family": "image_mlp", "horizon_steps": 100}, {"task": "text", "family": "text_lm", "horizon_steps": 100}]
    filled = {
        "warnings": ["Under-covered: 1 meta-seed and 2 tasks."],
        "notes": [],
        "summary": [summary_row(key, score) for key in lines],
        "targets": targets,
        "gaps": [{"learner": "mine", "inside_tasks": 1, "outside_tasks": 1, **interval("gap", 0.2)}],
        "levels": [],
        "branches": [],
    }
    provenance = {"suite": suite, "seeds": 5, "device": "cpu", "versions": {"metaopt": "0.1", "torch": "2.13"}}
    return {"schema_version": 2, "provenance": provenance, "results": {**filled, **table_of_tasks(tasks), **results}}


def table_of_tasks(tasks):
    return {"tasks": tasks}


def ordered(suite, scores=(0.4, 0.8, 0.6, 0.2), s50=3.0, lines=LINES):
    """Return a report along an axis with factors x0.5 (score first), x1, x2, x4; the learner was trained for x1 and x2."""
    factors = (0.5, 1.0, 2.0, 4.0)
    levels = [
        {
            **line(key),
            **{"level": f"x{factor:g}", "factor": factor, "inside_support": factor in (1.0, 2.0) if key[1] == "learner" else None},
            **interval("score", score),
            **interval("retention", score / scores[1]),
        }
        for key in lines
        if key[2] != 5
        for factor, score in zip(factors, scores, strict=True)
    ]
    branches = [
        {
            **line(key),
            **{"direction": way, "falls_throughout": True},
            **interval("s50", s50 if way == "up" else "inf", 0.5),
            **interval("slope", -0.375),
            **interval("area", 0.5),
        }
        for key in lines
        if key[2] != 5
        for way in ("up", "down")
    ]
    found = content(suite, lines, levels=levels, branches=branches)
    found["provenance"]["axis"] = {"name": suite, "home": "x1"}
    return found


def unordered(suite, scores=(0.8, 0.32, 0.6)):
    """Return a report along an axis of names: relu (home), sine, gelu."""
    levels = [
        {
            **line(key),
            **{"level": level, "factor": None, "inside_support": None},
            **interval("score", score),
            **interval("retention", score / scores[0] if key[1] == "learner" else 1.0),
        }
        for key in (LEARNER, TUNED)
        for level, score in zip(("relu", "sine", "gelu"), scores, strict=True)
    ]
    return content(suite, levels=levels)


def save(folder, *contents):
    """Write reports as a run does, into folders named after their suites; returns the folders."""
    folders = []
    for one in contents:
        place = folder / one["provenance"]["suite"]
        place.mkdir(parents=True, exist_ok=True)
        (place / "report.json").write_text(json.dumps(one))
        folders.append(place)
    return folders


def late(suite):
    """Return a report with a task on which `mine` fits at 20 and generalises at 80, and adamw fits at 10 and never generalises."""
    steps = [0, 10, 20, 80, 100]
    curves = {
        "mine": {"steps": steps, "train_median": [1.0, 0.5, 0.04, 0.0, 0.0], "heldout_median": [1.0, 1.5, 2.0, 0.01, 0.0]},
        "adamw K=15": {"steps": steps, "train_median": [1.0, 0.05, 0.0, 0.0, 0.0], "heldout_median": [1.0, 2.0, 3.0, 3.0, 3.0]},
    }
    targets = [{"task": "plus", "family": "modular_arithmetic"}, {"task": "text", "family": "text_lm"}]
    return content(suite, targets=targets, curves={"plus": {"reference": "adamw@0.01", "lines": curves}})
