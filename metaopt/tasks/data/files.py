"""Data sets from files: IDX, npz, torch and CSV. Each function takes a path and returns a checked data set; no file can run code.

Arrays in one file are named `x` and `y`; or `x_train`, `y_train`, `x_test`, `y_test` (as in the well-known `mnist.npz`), whose test part is
then what is held out.
"""

import gzip
import math
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaopt.errors import ConfigError
from metaopt.names import nearest
from metaopt.tasks.data.data_set import DataSet, make_data_set

__all__ = ["from_csv", "from_idx", "from_npz", "from_torch", "named_arrays"]

_PARTS = (("x", "y"), ("x_train", "y_train", "x_test", "y_test"))
# Third byte of an IDX file -> dtype of its entries, big-endian.
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def existing(path: str | Path, what: str) -> Path:
    """Return the path.

    Raises:
        ConfigError: nothing is there.
    """
    found = Path(path)
    if not found.exists():
        raise ConfigError(f"{what} {found} does not exist; check the path")
    return found


def named_arrays(name: str, arrays: Mapping[str, Any], path: object) -> DataSet:
    """Return the data set of arrays `x`, `y` or `x_train`, `y_train`, `x_test`, `y_test`.

    Raises:
        ConfigError: neither set of names is complete, or `make_data_set` refuses them.
    """
    for parts in _PARTS:
        if not all(part in arrays for part in parts):
            continue
        values = [_plain(name, part, arrays[part]) for part in parts]
        if len(parts) == 2:
            return make_data_set(name, values[0], values[1])
        if values[0].shape[1:] != values[2].shape[1:]:
            raise ConfigError(
                f"data set {name!r}: x_train and x_test must have one shape an example, got {values[0].shape[1:]} and {values[2].shape[1:]}"
            )
        inputs, labels = np.concatenate([values[0], values[2]]), np.concatenate([values[1], values[3]])
        return make_data_set(name, inputs, labels, heldout_rows=len(values[3]))
    raise ConfigError(
        f"{path} must hold the arrays x and y, or x_train, y_train, x_test and y_test; it holds {', '.join(arrays) or 'none'}"
    )


def _plain(name: str, part: str, value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError:
        raise ConfigError(f"data set {name!r}: {part} is ragged; all examples must have one shape") from None


def from_npz(path: str | Path, name: str = "") -> DataSet:
    """Return the data set of an npz file with the arrays `x` and `y`, or training and test parts. Pickled arrays are refused.

    Args:
        path: the file.
        name: default: the file's stem.

    Raises:
        ConfigError: the file is missing, not an npz file, pickled, or its content is refused by `make_data_set`.
    """
    found = existing(path, "npz file")
    if not zipfile.is_zipfile(found):
        raise ConfigError(f"{found} is not an npz file, or is cut; save inputs and labels with np.savez(path, x=..., y=...)")
    try:
        with np.load(found, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise ConfigError(
                f"{found} holds pickled objects, which could run code; save plain arrays with np.savez(path, x=..., y=...)"
            ) from None
        raise ConfigError(f"{found} is not a readable npz file ({error})") from None
    return named_arrays(name or found.stem, arrays, found)


def from_torch(path: str | Path, name: str = "") -> DataSet:
    """Return the data set of a file that `torch.save` wrote of a dict of tensors `x` and `y`, or training and test parts.

    It is read with `weights_only=True`: tensors and plain containers, no other objects.

    Args:
        path: the file.
        name: default: the file's stem.

    Raises:
        ConfigError: the file is missing, damaged, holds other objects, or its content is refused by `make_data_set`.
    """
    import torch

    found = existing(path, "torch file")
    try:
        with warnings.catch_warnings():  # an unusual pickle protocol is worth a warning to torch; here the file is read or refused
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(found, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # how torch says that it refused; nothing was run
        raise ConfigError(
            f"{found} holds more than tensors and plain containers, which could run code; save a dict of tensors x and y"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise ConfigError(f"{found} is not a readable torch file ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{found} must hold a dict of tensors x and y, got {type(content).__name__}")
    arrays = {str(key): value.numpy(force=True) if isinstance(value, torch.Tensor) else value for key, value in content.items()}
    return named_arrays(name or found.stem, arrays, found)


def from_csv(path: str | Path, label: str | None = None, name: str = "", amounts: bool = False) -> DataSet:
    """Return the data set of a CSV file with a header: a column of integer labels or amounts, all others are numeric features.

    Args:
        path: the file, also .gz.
        label: the column of labels; default: the last one.
        name: default: the file's stem.
        amounts: labels are amounts to predict, not classes.

    Raises:
        ConfigError: the file is missing or ragged, the column does not exist, or a cell is no number; names row and column.
    """
    import pandas as pd

    found = existing(path, "CSV file")
    try:
        table = pd.read_csv(found, dtype=str, keep_default_na=False, index_col=False)
    except (ValueError, OSError) as error:  # pandas derives its parser errors from ValueError
        raise ConfigError(
            f"{found} is not a readable CSV file ({str(error).strip()}); every row needs as many cells as the header"
        ) from None
    column = label if label is not None else str(table.columns[-1])
    if column not in table.columns:
        raise ConfigError(f"{found}: column {column!r} is unknown{nearest(column, [str(c) for c in table.columns])}")
    labels = _cells(found, table[[column]], *((float, "a number") if amounts else (int, "an integer")))[:, 0]
    features = _cells(found, table.drop(columns=column), float, "a number")
    return make_data_set(name or found.name.split(".")[0], features, labels, shape=(features.shape[1],), amounts=amounts)


def _cells(path: Path, table: Any, kind: Callable[[str], float], what: str) -> NDArray[Any]:
    """Return the cells of a table as numbers."""
    cells = table.to_numpy()
    out = np.empty(cells.shape, dtype=np.int64 if kind is int else np.float64)
    for row, column in np.ndindex(cells.shape):
        try:
            out[row, column] = kind(str(cells[row, column]).strip())
        except ValueError:
            raise ConfigError(
                f"{path}: row {row + 1}, column {str(table.columns[column])!r} must be {what}, got {str(cells[row, column])[:40]!r}"
            ) from None
    return out


def from_idx(path: str | Path, labels: str | Path | None = None, name: str = "") -> DataSet:
    """Return the data set of IDX files, the format of MNIST and its many successors; also .gz.

    Args:
        path: a file of images; or a folder with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and, to be held out, the two `t10k-`
            files.
        labels: the file of labels; default: `images-idx3` in the name of `path` becomes `labels-idx1`.
        name: default: the folder's name.

    Raises:
        ConfigError: a file is missing, cut, or not IDX; or its content is refused by `make_data_set`.
    """
    found = existing(path, "IDX file or folder")
    if found.is_dir():
        train = _idx_pair(_idx_member(found, "train-images-idx3-ubyte"), None)
        name = name or found.name
        if not any(found.glob("t10k-images-idx3-ubyte*")):
            return make_data_set(name, *train)
        test = _idx_pair(_idx_member(found, "t10k-images-idx3-ubyte"), None)
        parts = {"x_train": train[0], "y_train": train[1], "x_test": test[0], "y_test": test[1]}
        return named_arrays(name, parts, found)
    return make_data_set(name or found.absolute().parent.name, *_idx_pair(found, labels))


def _idx_member(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.exists():
            return candidate
    raise ConfigError(f"{folder} has no {name} (nor {name}.gz); put the IDX files there or name one")


def _idx_pair(images: Path, labels: str | Path | None) -> tuple[NDArray[Any], NDArray[Any]]:
    if labels is None:
        sibling = images.name.replace("images-idx3", "labels-idx1")
        if sibling == images.name:
            raise ConfigError(f"labels of {images} are not known: its name lacks images-idx3; name their file with labels=")
        labels = images.with_name(sibling)
    return _read_idx(images), _read_idx(existing(labels, "IDX file of labels"))


def _read_idx(path: Path) -> NDArray[Any]:
    """Return the array of an IDX file: two zero bytes, a type, the number of axes, their extents (big-endian), the entries."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path} is cut or not gzip ({error})") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_DTYPES:
        raise ConfigError(f"{path} is not an IDX file: it begins with {content[:4].hex()}")
    dtype, axes = np.dtype(_IDX_DTYPES[content[2]]), content[3]
    start = 4 + 4 * axes
    extents = tuple(int(extent) for extent in np.frombuffer(content[4:start][: 4 * ((len(content) - 4) // 4)], ">u4"))
    want = start + math.prod(extents) * dtype.itemsize
    if len(extents) < axes or len(content) != want:
        raise ConfigError(f"{path} has {len(content)} bytes, but its header announces {want}; it is cut or damaged, get it again")
    return np.frombuffer(content, dtype, offset=start).reshape(extents).astype(dtype.newbyteorder("="))
