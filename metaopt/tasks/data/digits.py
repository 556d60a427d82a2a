"""Grey digits of 8 x 8 pixels, inside scikit-learn: 1,797, about 180 of each class.

Source: Alpaydin, Kaynak, 1998, "Optical recognition of handwritten digits", UCI (its test part).
"""

import numpy as np

from metaopt.tasks.data.data_set import DataSet, Source, make_data_set

__all__ = ["DIGITS"]

_HELDOUT_ROWS = 360  # of 1,797; the last ones, so that the split needs no seed


def _read() -> DataSet:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return make_data_set("digits", images.astype(np.uint8), labels, shape=(1, 8, 8), heldout_rows=_HELDOUT_ROWS)


DIGITS = Source("digits", _read, (1, 8, 8), 10, "b98d4fb46dd18539", "scikit-learn 1.9.1")
