"""Nested state survives as bytes, exactly, and damaged bytes are always noticed as such."""

import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt.errors import CorruptCheckpointError
from metaopt.outer.blobs import from_blob, from_json, from_torch, to_blob, to_json, to_torch

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64]
shapes = st.lists(st.integers(0, 3), max_size=4)


@st.composite
def tensors(draw):
    shape, dtype = draw(shapes), draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    return (torch.randn(shape, generator=generator) * 10).to(dtype)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
keys = st.sampled_from(["a", "b", "a/b", "", "__metadata__", "%2F", "0"]) | st.text(max_size=4)
trees = st.dictionaries(
    keys,
    st.recursive(tensors() | scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8),
    max_size=4,
)


def same(a, b):
    """Return whether two trees are equal bit for bit, types and key order included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or struct.pack("d", a) == struct.pack("d", b)
    return a == b


@settings(max_examples=80, deadline=None)
@given(trees)
def test_round_trip_is_exact_and_bytes_are_equal(tree):
    blob = to_blob(tree)
    assert same(from_blob(blob), tree)
    assert to_blob(from_blob(blob)) == blob


def test_views_shared_storage_and_gradients_are_kept_as_values():
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    tree = {"whole": base, "transposed": base.T, "again": base, "expanded": torch.ones(1).expand(5)}
    loaded = from_blob(to_blob(tree))
    assert all(torch.equal(loaded[key], tree[key]) and not loaded[key].requires_grad for key in tree)


@pytest.mark.parametrize("bad", [{"a": {"b": (1, 2)}}, {"a": {"b": {1, 2}}}, {"a": {"b": object()}}])
def test_other_types_are_refused_with_their_place(bad):
    with pytest.raises(TypeError, match="at '/a/b' cannot be kept"):
        to_blob(bad)
    with pytest.raises(TypeError, match="key 1 at '/a' must be str"):
        to_blob({"a": {1: 2}})


def test_cut_bytes_are_corrupt():
    state = {"weights": torch.ones(50), "lr": 0.1}
    for write, read in ((to_blob, from_blob), (to_torch, from_torch)):
        blob = write(state)
        for sixteenth in range(16):
            with pytest.raises(CorruptCheckpointError):
                read(blob[: len(blob) * sixteenth // 16])
    with pytest.raises(CorruptCheckpointError):
        from_json(b'{"a": ')


def test_torch_state_round_trip_and_equal_bytes():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    (parameter**2).sum().backward()
    optimizer.step()
    blob = to_torch(optimizer.state_dict())
    assert to_torch(optimizer.state_dict()) == blob
    loaded = from_torch(blob)
    assert torch.equal(loaded["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


class Bomb:
    """Would create a file when unpickled by the wrong loader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_code_runs_from_a_file(tmp_path):
    blob = to_torch({"a": Bomb(tmp_path / "marker")})
    with pytest.raises(CorruptCheckpointError):
        from_torch(blob)
    assert not (tmp_path / "marker").exists()


def test_json_is_strict_and_stable():
    assert to_json({"b": 1, "a": [0.1]}) == to_json({"a": [0.1], "b": 1})
    assert from_json(to_json({"a": 0.1 + 0.2})) == {"a": 0.1 + 0.2}
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"a": float("nan")})
