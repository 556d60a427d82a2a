"""Data sets from objects of torchvision and Hugging Face `datasets`; the caller has made them, and nothing is downloaded here."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaopt.errors import ConfigError
from metaopt.tasks.data.data_set import DataSet, make_data_set

__all__ = ["from_hugging_face", "from_torchvision"]


def from_torchvision(training: Any, heldout: Any = None, name: str = "") -> DataSet:
    """Return the data set of a torchvision data set, or of anything with a length whose items are (image, label).

    Args:
        training: e.g. `torchvision.datasets.FashionMNIST(root)`; images are PIL images, arrays [height, width(, channels)] or tensors
            [channels, height, width], all of one size.
        heldout: a second one, e.g. with `train=False`; default: a fifth of `training`.
        name: default: the class's name in lower case.

    Raises:
        ConfigError: an item is not (image, label), images differ in size, or `make_data_set` refuses them.
    """
    name = name or type(training).__name__.lower()
    return _joined(name, _pairs(name, training), None if heldout is None else _pairs(name, heldout))


def from_hugging_face(training: Any, heldout: Any = None, image: str = "image", label: str = "label", name: str = "") -> DataSet:
    """Return the data set of a Hugging Face `datasets.Dataset`, or of anything that yields dicts with an image and a label.

    Args:
        training: e.g. `load_dataset(...)["train"]`.
        heldout: a second one, e.g. `["test"]`; default: a fifth of `training`.
        image: column of images.
        label: column of integer labels.
        name: default: "hugging_face".

    Raises:
        ConfigError: a column is missing, images differ in size, or `make_data_set` refuses them.
    """
    name = name or "hugging_face"

    def pairs(rows: Iterable[Any]) -> list[tuple[NDArray[Any], Any]]:
        found = []
        for i, row in enumerate(rows):
            missing = [column for column in (image, label) if column not in row]
            if missing:
                raise ConfigError(
                    f"data set {name!r}: row {i} has no column {missing[0]!r}; it has {', '.join(row)}; name it with image= or label="
                )
            found.append((_pixels(name, i, row[image]), row[label]))
        return found

    return _joined(name, pairs(training), None if heldout is None else pairs(heldout))


def _pairs(name: str, items: Sequence[Any]) -> list[tuple[NDArray[Any], Any]]:
    found = []
    for i in range(len(items)):
        item = items[i]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ConfigError(f"data set {name!r}: item {i} must be (image, label), got {type(item).__name__}")
        found.append((_pixels(name, i, item[0]), item[1]))
    return found


def _pixels(name: str, row: int, image: Any) -> NDArray[Any]:
    """Return an image as [channels, height, width]; PIL images and arrays have channels last, tensors first."""
    first = hasattr(image, "detach")
    array = np.asarray(image.detach().cpu() if first else image)
    if array.ndim == 2:
        return array[None]
    if array.ndim != 3:
        raise ConfigError(f"data set {name!r}: image {row} must have two or three axes, got shape {array.shape}")
    return array if first else array.transpose(2, 0, 1)


def _joined(name: str, training: list[tuple[NDArray[Any], Any]], heldout: list[tuple[NDArray[Any], Any]] | None) -> DataSet:
    rows = [*training, *(heldout or [])]
    if not rows:
        raise ConfigError(f"data set {name!r} is empty")
    for i, (pixels, _) in enumerate(rows):
        if pixels.shape != rows[0][0].shape:
            raise ConfigError(
                f"data set {name!r}: image {i} has shape {pixels.shape}, the first one {rows[0][0].shape}; resize them to one size"
            )
    labels = np.asarray([label for _, label in rows])
    return make_data_set(name, np.stack([pixels for pixels, _ in rows]), labels, heldout_rows=len(heldout) if heldout is not None else None)
