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
_STRIDE = 3  # patches of one part of a picture overlap
_HELDOUT_FRAC = 0.25  # of a picture's height, from below: no pixel is in a training and in a held-out patch
_BLANK = 4.0  # grey levels of deviation that a patch must pass
_TRAIN, _HELDOUT = 1600, 100  # of each picture


def _read() -> DataSet:
    from PIL import Image

    folder = package_folder("textures", "skimage", "scikit-image") / "data"
    train, heldout = [], []
    for name in _IMAGES:
        with Image.open(folder / f"{name}.png") as image:
            pixels = np.asarray(image.convert("L"))
        cut = len(pixels) - round(_HELDOUT_FRAC * len(pixels))
        train.append(_some(name, pixels[:cut], _TRAIN))
        heldout.append(_some(name, pixels[cut:], _HELDOUT))
    labels = [np.repeat(np.arange(len(part)), len(part[0])) for part in (train, heldout)]
    mixed = [_shuffled(np.concatenate(part), which) for part, which in zip((train, heldout), labels, strict=True)]
    inputs, targets = (np.concatenate(both) for both in zip(*mixed, strict=True))
    return make_data_set("textures", inputs, targets, heldout_rows=_HELDOUT * len(_IMAGES))


def _patches(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return all patches [P, side, side] of a picture at the stride."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (_SIDE, _SIDE))[::_STRIDE, ::_STRIDE]
    return windows.reshape(-1, _SIDE, _SIDE)


def _some(name: str, pixels: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return some patches that are not blank, drawn by a hash."""
    patches = _patches(pixels)
    varied: NDArray[np.uint8] = patches[patches.std((1, 2)) > _BLANK]
    order = sorted(range(len(varied)), key=lambda i: stable_hash("texture", name, i))
    chosen: NDArray[np.uint8] = varied[order[:count]]
    return chosen


def _shuffled(patches: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    order = sorted(range(len(labels)), key=lambda i: stable_hash("textures", i))
    return patches[order], labels[order]


TEXTURES = Source("textures", _read, (1, _SIDE, _SIDE), len(_IMAGES), "58f2690fd9eb5a7e", "scikit-image 0.26.0")
