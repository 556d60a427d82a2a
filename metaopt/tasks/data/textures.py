"""Which of five textures a patch was cut from: brick, grass, gravel, tissue, print. Sums over 3 x 3 pixels, 12 x 12 of them a patch.

The pictures are inside scikit-image.
"""

import numpy as np
from numpy.typing import NDArray

from metaopt.seeds import stable_hash
from metaopt.tasks.data.data_set import DataSet, Source, make_data_set, package_folder

__all__ = ["TEXTURES"]

_IMAGES = ("brick", "grass", "gravel", "ihc", "page")  # ihc: stained tissue; page: print. All PNG, whose pixels no decoder changes.
_SIDE = 12  # of a patch, in sums
_CELL = 3  # pixels summed along each axis: a patch shows more of the pattern than a single pixel's grain
_HELDOUT_FRAC = 0.25  # of a picture's height, from below: no pixel is in a training and in a held-out patch
_BLANK = 4.0 * _CELL**2  # a patch must deviate by more: four grey levels
_TRAIN, _HELDOUT = 1600, 100  # of each picture


def _read() -> DataSet:
    from PIL import Image

    folder = package_folder("textures", "skimage", "scikit-image") / "data"
    train, heldout = [], []
    for name in _IMAGES:
        with Image.open(folder / f"{name}.png") as image:
            sums = _sums(np.asarray(image.convert("L")))
        cut = len(sums) - round(_HELDOUT_FRAC * len(sums))
        train.append(_some(name, sums[:cut], _TRAIN))
        heldout.append(_some(name, sums[cut:], _HELDOUT))
    labels = [np.repeat(np.arange(len(part)), len(part[0])) for part in (train, heldout)]
    mixed = [_shuffled(np.concatenate(part), which) for part, which in zip((train, heldout), labels, strict=True)]
    inputs, targets = (np.concatenate(both) for both in zip(*mixed, strict=True))
    return make_data_set("textures", inputs, targets, heldout_rows=_HELDOUT * len(_IMAGES))


def _sums(pixels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the sums over cells that tile a picture; integers, so that they are the same everywhere."""
    rows, columns = (extent // _CELL for extent in pixels.shape)
    cells = pixels[: rows * _CELL, : columns * _CELL].reshape(rows, _CELL, columns, _CELL)
    sums: NDArray[np.uint16] = cells.sum((1, 3), dtype=np.uint16)
    return sums


def _some(name: str, sums: NDArray[np.uint16], count: int) -> NDArray[np.uint16]:
    """Return some of the patches that are not blank, drawn by a hash; they overlap."""
    patches = np.lib.stride_tricks.sliding_window_view(sums, (_SIDE, _SIDE)).reshape(-1, _SIDE, _SIDE)
    varied: NDArray[np.uint16] = patches[patches.std((1, 2)) > _BLANK]
    order = sorted(range(len(varied)), key=lambda i: stable_hash("texture", name, i))
    chosen: NDArray[np.uint16] = varied[order[:count]]
    return chosen


def _shuffled(patches: NDArray[np.uint16], labels: NDArray[np.int64]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    order = sorted(range(len(labels)), key=lambda i: stable_hash("textures", i))
    return patches[order], labels[order]


TEXTURES = Source("textures", _read, (1, _SIDE, _SIDE), len(_IMAGES), "655c285339ec880a", "scikit-image 0.26.0")
