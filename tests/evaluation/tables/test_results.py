"""The tables as such: their columns, their JSON, their warnings."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from metaopt.evaluation.tables.results import COLUMNS, Results, make_table, records


def results(runs):
    """Results of nothing but rows (kind, learner, meta-seed, base)."""
    blank = dict.fromkeys(COLUMNS["scores"])
    rows = [blank | dict(zip(("kind", "learner", "meta_seed", "base"), run, strict=True)) for run in runs]
    return Results({}, [], {}, **{name: make_table(name, rows if name == "scores" else []) for name in COLUMNS})


def test_an_empty_table_has_its_columns():
    for name, columns in COLUMNS.items():
        assert make_table(name, []).columns.tolist() == list(columns)
        assert len(set(columns)) == len(columns)


def test_a_row_with_other_columns_is_an_error():
    with pytest.raises(ValueError, match=r"table 'gaps' differs in columns \['gap_high', 'gap_low', 'gaps'"):
        make_table("gaps", [{"learner": "x", "gaps": 1.0, "gap": 0.5, "inside_tasks": 1, "outside_tasks": 2}])


def test_every_table_is_a_field_and_is_described():
    for name, columns in COLUMNS.items():
        assert name in Results.__dataclass_fields__
        text = Results.__doc__.replace("\n", " ")
        assert f" {name}: " in text
        said = [one for one in columns if f"`{one}`" in text or one.endswith(("_low", "_high")) or one in ("learner", "kind", "trials")]
        assert set(columns) - set(said) <= {"task", "level", "value", "low", "high", "tau"}, name


def test_records_are_strict_json():
    table = pd.DataFrame(
        {
            "a": [math.nan, math.inf, -math.inf],
            "b": [None, "x", "y"],
            "c": [True, None, np.bool_(False)],
            "d": [1, 2, 3],
            "e": np.float32([0.5, 0.25, 1.0]),
        }
    )
    rows = records(table)
    assert rows[0] == {"a": None, "b": None, "c": True, "d": 1, "e": 0.5}
    assert [row["a"] for row in rows] == [None, "inf", "-inf"]
    assert rows[2]["c"] is False
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_warnings_count_meta_seeds_and_base_tasks_of_each_learner():
    """Levels of one base task are no further tasks; what was never meta-trained does not count."""
    wide = [("learner", "wide", i, f"t{j}") for i in range(5) for j in range(10)]
    few = [("learner", "few", 0, f"t{j}") for j in range(10)] * 2
    assert results([*wide, ("baseline", "sgd", 0, "t0")]).warnings == []
    both = results([*wide, *few]).warnings
    assert both == [
        "Under-covered (few): 1 meta-seed and 10 tasks; 95 % intervals here hold less than 95 % (a headline needs 5 and 10).",
    ]
    assert results(few).warnings[0].startswith("Under-covered: 1 meta-seed and 10 tasks;")
    assert results(wide[:9]).warnings[0].startswith("Under-covered: 1 meta-seed and 9 tasks;")
