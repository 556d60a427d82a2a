"""Values as JSON knows them."""

import json

import numpy as np
import pandas as pd
import pytest

from metaopt.evaluation.policies.results import plain


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (float("nan"), None),
        (np.float32("inf"), None),
        ("text", "text"),
        (None, None),
        ((1, 2.0), [1, 2.0]),
        ({"a": [np.nan, {"b": np.int32(1)}]}, {"a": [None, {"b": 1}]}),
    ],
)
def test_numbers_become_pythons_and_what_is_not_finite_null(value, expected):
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


def test_tables_survive():
    table = pd.DataFrame({"who": ["a", "b"], "tasks": [1, 2], "reward": [0.5, np.nan]})
    text = json.dumps(plain(table.to_dict("records")), allow_nan=False)
    assert json.loads(text) == [{"who": "a", "tasks": 1, "reward": 0.5}, {"who": "b", "tasks": 2, "reward": None}]
