"""Small tables inside scikit-learn: three to classify, one of amounts."""

from functools import partial

import numpy as np

from metaopt.tasks.data.data_set import DataSet, Source, make_data_set

__all__ = ["BREAST_CANCER", "DIABETES", "IRIS", "WINE"]


def _read(name: str) -> DataSet:
    from sklearn import datasets

    if name == "diabetes":  # the other form was standardised with what is held out here
        inputs, amounts = datasets.load_diabetes(return_X_y=True, scaled=False)
        return make_data_set(name, inputs, amounts, amounts=True)
    inputs, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    _, once = np.unique(inputs, axis=0, return_index=True)  # two irises are equal: one could be held out and the other trained on
    return make_data_set(name, inputs[np.sort(once)], labels[np.sort(once)])


BREAST_CANCER = Source("breast_cancer", partial(_read, "breast_cancer"), (30,), 2, "52814f7ba75ade44", "scikit-learn 1.9.1")
"""569 tumours. Source: Street, Wolberg, Mangasarian, 1993, "Nuclear feature extraction for breast tumor diagnosis"."""
DIABETES = Source("diabetes", partial(_read, "diabetes"), (10,), 0, "936c1b8ed02d16b5", "scikit-learn 1.9.1")
"""442 patients, progression after a year. Source: Efron, Hastie, Johnstone, Tibshirani, 2004, "Least angle regression"."""
IRIS = Source("iris", partial(_read, "iris"), (4,), 3, "820b3aa07b27fe4c", "scikit-learn 1.9.1")
"""149 flowers. Source: Fisher, 1936, "The use of multiple measurements in taxonomic problems"."""
WINE = Source("wine", partial(_read, "wine"), (13,), 3, "c9e2c77048de25f5", "scikit-learn 1.9.1")
"""178 wines. Source: Aeberhard, Coomans, de Vel, 1992, "Comparison of classifiers in high dimensional settings"."""
