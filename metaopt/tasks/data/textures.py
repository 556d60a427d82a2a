"""Which of five textures a patch of 12 x 12 pixels was cut from: brick, grass, gravel, tissue, print.

The pictures are inside scikit-image.
"""

import numpy as np
from numpy.typing import NDArray

from metaopt.seeds import stable_hash
from metaopt.tasks.data.data_set import DataSet, Source, make_data_set, package_folder

__all__ = ["TEXTURES"]

_IMAGES = ("brick", "grass", "gravel", "ihc", "page")  # ihc: stained tissue; page: print. All PNG, whose pixels no decoder changes.
_SIDE = 12
_HELDOUT_FRAC = 0.2  # of the rows of patches, from below: no held-out patch touches more than an edge of the training area
_TRAIN, _HELDOUT = 350, 90  # of each image


def _read() -> DataSet:
    from PIL import Image

    folder = package_folder("textures", "skimage", "scikit-image") / "data"
    train, heldout = [], []
    for name in _IMAGES:
        with Image.open(folder / f"{name}.png") as image:
            rows = _patches(np.asarray(image.convert("L")))
        cut = len(rows) - round(_HELDOUT_FRAC * len(rows))
        train.append(_some(name, rows[:cut].reshape(-1, _SIDE, _SIDE), _TRAIN))
        heldout.append(_some(name, rows[cut:].reshape(-1, _SIDE, _SIDE), _HELDOUT))
    labels = [np.repeat(np.arange(len(part)), len(part[0])) for part in (train, heldout)]
    mixed = [_shuffled(np.concatenate(part), which) for part, which in zip((train, heldout), labels, strict=True)]
    inputs, targets = (np.concatenate(both) for both in zip(*mixed, strict=True))
    return make_data_set("textures", inputs, targets, heldout_rows=_HELDOUT * len(_IMAGES))


def _patches(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the patches [rows, columns, side, side] that tile an image."""
    rows, columns = (extent // _SIDE for extent in image.shape)
    tiles = image[: rows * _SIDE, : columns * _SIDE].reshape(rows, _SIDE, columns, _SIDE)
    return tiles.transpose(0, 2, 1, 3)


def _some(name: str, patches: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return some of the patches that are not blank, drawn by a hash."""
    varied: NDArray[np.uint8] = patches[patches.std((1, 2)) > 1.0]
    order = sorted(range(len(varied)), key=lambda i: stable_hash("texture", name, i))
    chosen: NDArray[np.uint8] = varied[order[:count]]
    return chosen


def _shuffled(patches: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    order = sorted(range(len(labels)), key=lambda i: stable_hash("textures", i))
    return patches[order], labels[order]


TEXTURES = Source("textures", _read, (1, _SIDE, _SIDE), len(_IMAGES), "4a48db4f94bd7f9f", "scikit-image 0.26.0")
