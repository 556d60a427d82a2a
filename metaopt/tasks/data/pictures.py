"""Single grey pictures as tables: a pixel's row and column, and how bright it is. 32 x 32 pixels, each a sum over a square of the original.

The pictures are inside scikit-image; those that are smooth enough for a pixel to follow from its neighbours. A fifth of the pixels is held
out, drawn by a hash.
"""

from functools import partial

import numpy as np

from metaopt.tasks.data.data_set import DataSet, Source, make_data_set, package_folder

__all__ = ["PICTURES"]

_SIDE = 32
_PICTURES = {  # side of the squares, digest; ihc: stained tissue; page: print
    "brick": (3, "309f9924772671a1"),
    "ihc": (6, "250d17f268195756"),
    "page": (4, "018da444635f7845"),
}


def _read(name: str, cell: int) -> DataSet:
    from PIL import Image

    folder = package_folder("pictures", "skimage", "scikit-image") / "data"
    with Image.open(folder / f"{name}.png") as image:
        pixels = np.asarray(image.convert("L"))
    top, left = ((extent - _SIDE * cell) // 2 for extent in pixels.shape)
    middle = pixels[top : top + _SIDE * cell, left : left + _SIDE * cell]
    sums = middle.reshape(_SIDE, cell, _SIDE, cell).sum((1, 3), dtype=np.int64)
    return make_data_set(f"picture_{name}", np.argwhere(sums >= 0), sums.reshape(-1), amounts=True)


PICTURES = {
    name: Source(f"picture_{name}", partial(_read, name, cell), (2,), 0, digest, "scikit-image 0.26.0")
    for name, (cell, digest) in _PICTURES.items()
}
"""Name of the picture -> its source: amounts by (row, column)."""
