"""Meta-parameters as one vector and back."""

import torch

from metaopt.estimators import flatten, unflatten


def test_there_and_back_keeps_order_shapes_and_leading_axes() -> None:
    theta = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(6.0), "c": torch.zeros(0)}
    vector = flatten(theta)
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 6]
    rows = unflatten(torch.stack([vector, vector + 10]), theta)
    assert list(rows) == ["b", "a", "c"]
    assert [tuple(v.shape) for v in rows.values()] == [(2, 2, 3), (2,), (2, 0)]
    assert all(torch.equal(rows[name][0], theta[name]) for name in theta)
    assert rows["a"].tolist() == [6.0, 16.0]
