"""Faces and what stands behind them, inside scikit-image: 100 faces (class 1) and 100 cuts of backgrounds, 25 x 25 grey pixels.

Source: Huang, Mattar, Lee, Learned-Miller, 2012, "Learning to align from scratch" (its subset of LFW).
"""

import numpy as np

from metaopt.tasks.data.data_set import DataSet, Source, make_data_set, package_folder

__all__ = ["FACES"]


def _read() -> DataSet:
    path = package_folder("faces", "skimage", "scikit-image") / "data" / "lfw_subset.npy"
    images = np.load(path, allow_pickle=False)  # the first half are faces
    labels = (np.arange(len(images)) < len(images) // 2).astype(np.int64)
    return make_data_set("faces", images, labels)


FACES = Source("faces", _read, (1, 25, 25), 2, "3bb1ab829b6d2f58", "scikit-image 0.26.0")
