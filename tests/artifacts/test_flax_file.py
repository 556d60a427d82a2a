"""A file of flax is read to the bit, or refused in one line that says what is wrong with it."""

import contextlib
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt.artifacts import flax_file
from metaopt.artifacts.flax_file import flat_arrays, read_tree
from metaopt.errors import ConfigError, UnsafeArtifactError
from tests.artifacts.flax_writer import CHUNKED, array_bytes, extension, in_pieces, packed, packed_pairs, write

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UnsafeArtifactError) as caught:
        read_tree(path)
    assert str(caught.value).startswith(f"{path}: "), "the message names the file"
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_arrays_come_back_to_the_bit(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    value = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    read = read_tree(write(tmp_path / "f", {"a": {"b": value}}))["a"]["b"]
    assert read.dtype == value.dtype
    assert read.shape == shape
    assert np.array_equal(read, value)


def test_it_agrees_with_the_package_on_the_bytes() -> None:
    msgpack = pytest.importorskip("msgpack")

    def default(value: Any) -> Any:
        return msgpack.ExtType(1, msgpack.packb((value.shape, value.dtype.name, value.tobytes()), use_bin_type=True))

    theirs = msgpack.packb({"w": MATRIX, "n": 300, "x": None, "y": 0.5, "z": True, "deep": {"b": b"x"}}, default=default, strict_types=True)
    read, written = (
        msgpack.unpackb(data, ext_hook=lambda code, data: (code, msgpack.unpackb(data)))
        for data in (theirs, packed({"w": MATRIX, "n": 300, "x": None, "y": 0.5, "z": True, "deep": {"b": b"x"}}))
    )
    assert read == written


def test_numbers_text_and_half_precision_of_accelerators(tmp_path: Path) -> None:
    half = extension(1, array_bytes((np.array([1.0, -2.5], np.float32).view(np.uint32) >> 16).astype(np.uint16), dtype="bfloat16"))
    content = packed_pairs([("step", 12), ("gen_id", "x"), ("scalar", np.float32(0.5)), ("none", None), ("pi", 3.5), ("true", True)])
    (tmp_path / "f").write_bytes(content[:1] + b"\x00\x00\x00\x07" + content[5:] + packed("half") + half)
    tree = read_tree(tmp_path / "f")
    assert {key: tree[key] for key in ("step", "gen_id", "none", "pi", "true")} == {
        "step": 12,
        "gen_id": "x",
        "none": None,
        "pi": 3.5,
        "true": True,
    }
    assert tree["scalar"].shape == ()
    assert tree["scalar"] == 0.5
    assert tree["half"].dtype == np.float32
    assert tree["half"].tolist() == [1.0, -2.5]


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 30), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_arrays_in_pieces_are_joined(tmp_path_factory: pytest.TempPathFactory, size: int, rows: int, columns: int) -> None:
    value = np.arange(rows * columns, dtype=np.float64).reshape(rows, columns)
    path = write(tmp_path_factory.mktemp("pieces") / "f", {"big": in_pieces(value, size), "small": MATRIX})
    tree = read_tree(path)
    assert np.array_equal(tree["big"], value)
    assert np.array_equal(tree["small"], MATRIX)


def test_named_tuples_of_old_and_new_are_the_same(tmp_path: Path) -> None:
    new = {"hidden": MATRIX, "cell": MATRIX + 1}
    old = {"name": "LSTMState", "fields": {"0": "hidden", "1": "cell"}, "values": {"0": MATRIX, "1": MATRIX + 1}}
    trees = [read_tree(write(tmp_path / name, {"state": state}))["state"] for name, state in (("new", new), ("old", old))]
    assert all(np.array_equal(trees[0][field], trees[1][field]) for field in ("hidden", "cell"))


def test_paths_of_arrays() -> None:
    tree = {"b": {"mlp/~/linear_0": {"w": MATRIX}}, "a": MATRIX, "empty": {}}
    assert {path: value.shape for path, value in flat_arrays(tree, "f").items()} == {"b/mlp/~/linear_0/w": (2, 3), "a": (2, 3)}
    with pytest.raises(UnsafeArtifactError, match="f: 'a/b' is there twice"):
        flat_arrays({"a": {"b": MATRIX}, "a/b": MATRIX}, "f")
    with pytest.raises(UnsafeArtifactError, match="f: 'a/b' is int, no array"):
        flat_arrays({"a": {"b": 3}}, "f")


def test_paths_may_be_deep() -> None:
    tree: dict[str, Any] = {"leaf": MATRIX}
    for _ in range(5000):
        tree = {"x": tree}
    assert len(flat_arrays(tree, "f")) == 1


@pytest.mark.parametrize("cut", [0, 1, 2, 7, 20, -1])
def test_a_cut_file_is_refused(tmp_path: Path, cut: int) -> None:
    assert "damaged, or no file of flax" in refusal(tmp_path / "f", packed({"nn": {"w": MATRIX}})[:cut])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed({"w": MATRIX}) + b"\x00", "damaged, or no file of flax: unpack(b) received extra data."),
        (b"\xc1", "damaged, or no file of flax"),
        (packed([MATRIX]), "holds tuple, no tree of arrays"),
        (packed({"w": 1j}), "holds a complex number, which no update rule has"),
        (packed_pairs([("w", MATRIX), ("w", MATRIX)]), "a key is there twice"),
        (packed_pairs([(3, MATRIX)]), "int is not allowed for map key"),
        (b"\xdf\x00\x00\x00\x01" + packed("w") + extension(9, b"code"), "unknown extension type 9; only arrays and numbers are read"),
        (b"\xdf\x00\x00\x00\x01" + packed("w") + extension(1, packed([1, 2])), "an array is not made of shape, dtype and bytes"),
        (packed({"w": {CHUNKED: True, "shape": {"0": 6}, "chunks": {"1": MATRIX}}}), "the pieces of an array are not counted from 0"),
        (packed({"w": {CHUNKED: True, "shape": {"0": 7}, "chunks": {"0": MATRIX}}}), "an array in pieces of shape (7,) has 6 elements"),
        (packed({"w": {CHUNKED: True, "shape": {"0": 0}, "chunks": {}}}), "an array in pieces is not made of shape and chunks"),
        (packed({"w": {CHUNKED: True, "shape": {"0": 6}, "chunks": {"0": 1}}}), "an array in pieces is not made of shape and chunks"),
        (packed({"w": {"name": "T", "fields": {"0": "a"}, "values": {}}}), "a named tuple lacks fields or values"),
    ],
)
def test_what_is_no_tree_of_arrays_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refusal(tmp_path / "f", content)


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"dtype": "object"}, "an array has dtype 'object'; known are bfloat16, float16"),
        ({"dtype": "float64"}, "an array float64 (2, 3) has 24 bytes where it needs 48"),
        ({"shape": [2, 4]}, "an array float32 (2, 4) has 24 bytes where it needs 32"),
        ({"shape": [-2, -3]}, "an array has the shape (-2, -3)"),
        ({"shape": [2, 3.0]}, "an array has the shape (2, 3.0)"),
        ({"shape": [1] * 9}, "an array has the shape (1, 1,"),
        ({"shape": [1 << 40, 0]}, "an array has the shape (1099511627776, 0)"),
        ({"shape": 6}, "an array has the shape 6"),
    ],
)
def test_an_array_that_lies_is_refused(tmp_path: Path, lie: dict[str, Any], message: str) -> None:
    assert message in refusal(tmp_path / "f", b"\xdf\x00\x00\x00\x01" + packed("w") + extension(1, array_bytes(MATRIX, **lie)))


def test_a_bomb_of_nested_lists_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "f", b"\xdd\x7f\xff\xff\xff" * 4)
    refusal(tmp_path / "f", b"\x91" * 100_000)
    refusal(tmp_path / "f", b"\xdc\xff\xff" + b"\xc0" * 0xFFFF)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert "is a pickle, which runs code when it is read" in refusal(tmp_path / "f", pickle.dumps({"w": MATRIX}, protocol))


def test_size_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flax_file, "_MAX_BYTES", 64)
    assert "is larger than 64 bytes" in refusal(tmp_path / "f", packed({"w": np.zeros(64)}))


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"nothing: cannot be read: No such file or directory; give the file of a checkpoint"):
        read_tree(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_tree(tmp_path)
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(ConfigError, match="reading files of flax needs the package msgpack; pip install msgpack"):
        read_tree(write(tmp_path / "f", {"w": MATRIX}))


@settings(deadline=None)
@given(content=st.binary(max_size=200))
def test_noise_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "f"
    path.write_bytes(content)
    with contextlib.suppress(UnsafeArtifactError):
        assert isinstance(read_tree(path), dict)
