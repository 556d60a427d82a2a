"""A data set, checked, standardised and split once and for all; and a named source that is read when it is needed.

Legend: N examples, D input features (the product of `shape`).
"""

import functools
import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.errors import ConfigError, TaskError

__all__ = ["DataSet", "Source", "make_data_set", "package_folder"]

_HELDOUT_FRAC = 0.2
_EXTRA = "pip install 'metaopt-platform[data]'"


@dataclass(frozen=True, eq=False)
class DataSet:
    """Labelled examples; the last `heldout_rows` are for evaluation only.

    Attributes:
        name: for messages and reports.
        inputs: [N, D] float32, standardised by the mean and deviation of all training inputs, of each feature on its own in table rows;
            rows first, then columns, per channel.
        labels: [N] int64 in [0, classes); amounts are float32, standardised by the mean and deviation of the training ones.
        classes: number of classes C, >= 2; 0 where labels are amounts.
        shape: (channels, height, width) of an image, (channels, length) of a sequence, (features,) of a table row.
        heldout_rows: how many examples are held out, in [1, N).
        digest: sixteen hex digits of the content before standardising.
    """

    name: str
    inputs: Tensor
    labels: Tensor
    classes: int
    shape: tuple[int, ...]
    heldout_rows: int
    digest: str

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels to train on."""
        cut = len(self.labels) - self.heldout_rows
        return self.inputs[:cut], self.labels[:cut]

    @property
    def heldout(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels that training never sees."""
        cut = len(self.labels) - self.heldout_rows
        return self.inputs[cut:], self.labels[cut:]

    def resized(self, shape: tuple[int, ...]) -> "DataSet":
        """Return the data set with images or sequences of another size, by averaging over areas; `self` if it has that shape already.

        Raises:
            TaskError: the number of channels or of axes would change.
        """
        if shape == self.shape:
            return self
        if len(shape) != len(self.shape) or len(shape) not in (2, 3) or shape[0] != self.shape[0]:
            raise TaskError(f"data set {self.name!r} of shape {self.shape} cannot be resized to {shape}; keep the channels and the axes")
        pooled = F.adaptive_avg_pool2d if len(shape) == 3 else F.adaptive_avg_pool1d
        inputs = pooled(self.inputs.reshape(-1, *self.shape), shape[1:] if len(shape) == 3 else shape[1])
        return DataSet(self.name, inputs.flatten(1), self.labels, self.classes, shape, self.heldout_rows, self.digest)


@dataclass(frozen=True)
class Source:
    """A data set by name that is read when it is first needed; hashable, equal sources are read once.

    Attributes:
        name: registry name.
        read: returns the data set.
        shape: what its examples look like.
        classes: number of classes.
        digest: what `DataSet.digest` must be; "" accepts anything.
        comes_from: distribution and version that the digest was recorded with, for the message.
    """

    name: str
    read: Callable[[], DataSet]
    shape: tuple[int, ...]
    classes: int
    digest: str = ""
    comes_from: str = ""

    def load(self) -> DataSet:
        """Return the data set.

        Raises:
            ConfigError: the package that brings it is not installed.
            TaskError: it cannot be read, or its content differs from what was recorded.
        """
        return _load(self)


@functools.cache
def _load(source: Source) -> DataSet:
    try:
        found = source.read()
    except OSError as error:
        raise TaskError(f"data set {source.name!r} cannot be read ({error}); install {source.comes_from or 'its package'} again") from error
    if source.digest and found.digest != source.digest:
        raise TaskError(
            f"data set {source.name!r} has changed: its content hash is {found.digest}, recorded was {source.digest}"
            f" (from {source.comes_from}); install that version again"
        )
    if (found.shape, found.classes) != (source.shape, source.classes):
        raise TaskError(
            f"data set {source.name!r} has shape {found.shape} and {found.classes} classes, but was declared with"
            f" {source.shape} and {source.classes}; declare what is there"
        )
    return found


def package_folder(data_set: str, package: str, distribution: str) -> Path:
    """Return the folder of an installed package without importing it.

    Raises:
        ConfigError: it is not installed; names the data set and the remedy.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"data set {data_set!r} needs the package {distribution}: {_EXTRA}")
    return Path(spec.submodule_search_locations[0])


def make_data_set(
    name: str,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    heldout_rows: int | None = None,
    amounts: bool = False,
) -> DataSet:
    """Return a checked and standardised data set.

    Args:
        name: for messages.
        inputs: [N, *shape], any real dtype; images [N, height, width] are taken as one channel.
        labels: [N] integers from 0, or any real numbers if `amounts`.
        shape: see `DataSet`; default: that of `inputs` ([N, a, b] is one channel of a x b).
        classes: default: the largest label plus one.
        heldout_rows: hold out the last so many rows as they stand; default: a fifth, drawn by a hash of the name (and all rows shuffled).
        amounts: labels are amounts to predict, not classes.

    Raises:
        ConfigError: sizes disagree, labels are not integers in range, or a value is not finite; names the data set, the row and the column.
    """
    values, targets = _array(name, "inputs", inputs), _array(name, "labels", labels)
    if values.ndim < 2 or values.shape[0] != targets.shape[0] or targets.ndim != 1:
        raise ConfigError(f"data set {name!r}: inputs must be [N, ...] and labels [N], got {list(values.shape)} and {list(targets.shape)}")
    if not amounts and not np.issubdtype(targets.dtype, np.integer):
        raise ConfigError(f"data set {name!r}: labels must be integers, got {targets.dtype} (first label {targets[:1].tolist()})")
    if shape is None:
        shape = (1, *values.shape[1:]) if values.ndim == 3 else values.shape[1:]
    count = len(targets)
    flat = np.ascontiguousarray(values.reshape(count, -1))
    bad = np.argwhere(~np.isfinite(flat)) if flat.dtype.kind == "f" else np.empty((0, 2), int)
    if len(bad):
        row, column = bad[0].tolist()
        raise ConfigError(
            f"data set {name!r}: inputs must be finite, got {flat[row, column]} in row {row}, column {column}"
            f" ({len(bad)} such values); drop or fill them"
        )
    classes = 0 if amounts else int(targets.max(initial=0)) + 1 if classes is None else classes
    if amounts and not np.isfinite(targets.astype(np.float64)).all():
        row = int(np.argmin(np.isfinite(targets.astype(np.float64))))
        raise ConfigError(f"data set {name!r}: amounts must be finite, got {targets[row]} in row {row}; drop or fill them")
    if not amounts and (classes < 2 or (count and not 0 <= targets.min() <= targets.max() < classes)):
        low, high = (int(targets.min()), int(targets.max())) if count else (0, 0)
        raise ConfigError(f"data set {name!r}: labels must be 0 to C - 1 of C >= 2 classes, got {low} to {high} for C = {classes}")
    rows = round(_HELDOUT_FRAC * count) if heldout_rows is None else heldout_rows
    if not 1 <= rows < count:
        raise ConfigError(f"data set {name!r}: held-out rows must be at least 1 and fewer than all {count}, got {rows}")
    digest = _digest(flat, targets, rows)
    if heldout_rows is None:
        order = seeds.uniform(seeds.key("data set", name), (count,), torch.float64).argsort(stable=True).numpy()
        flat, targets = flat[order], targets[order]
    scaled = _standardised(name, "inputs", flat, count - rows, each=len(shape) == 1)
    outputs = _standardised(name, "amounts", targets, count - rows) if amounts else targets.astype(np.int64)
    return DataSet(name, torch.from_numpy(scaled), torch.from_numpy(outputs), classes, tuple(shape), rows, digest)


def _standardised(name: str, what: str, values: NDArray[Any], training: int, each: bool = False) -> NDArray[np.float32]:
    """Return values [N, ...] less the mean of the first `training` of them, over their deviation; of `each` column, or of all.

    A column that never changes becomes 0.
    """
    known = values[:training].astype(np.float64)
    mean, deviation = known.mean(0 if each else None), known.std(0 if each else None)
    if np.all(deviation == 0.0):
        raise ConfigError(f"data set {name!r}: all {what} are {values.flat[0]:g}; there is nothing to learn from")
    scaled: NDArray[np.float32] = ((values - mean) / np.where(deviation == 0.0, 1.0, deviation)).astype(np.float32)
    return scaled


def _array(name: str, what: str, values: ArrayLike) -> NDArray[np.generic]:
    try:
        array = np.asarray(values)
    except ValueError:  # numpy's answer to rows of different lengths
        raise ConfigError(f"data set {name!r}: {what} are ragged; all examples must have one shape") from None
    if array.dtype.kind not in "buif":
        raise ConfigError(f"data set {name!r}: {what} must be numbers, got {array.dtype} (first entry {str(array.flat[0])[:40]!r})")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _digest(flat: NDArray[np.generic], labels: NDArray[np.generic], heldout_rows: int) -> str:
    content = hashlib.blake2b(f"{flat.shape} {flat.dtype.newbyteorder('<').str} {heldout_rows}".encode(), digest_size=8)
    content.update(flat.astype(flat.dtype.newbyteorder("<")).tobytes())
    content.update(labels.astype("<f8" if labels.dtype.kind == "f" else "<i8").tobytes())
    return content.hexdigest()
