"""Tables: features standardised one by one by the training rows, amounts too; nothing is on both sides of a split."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import datasets

from metaopt.errors import ConfigError
from metaopt.tasks import data

TABLES = {"breast_cancer": (569, 30, 2), "wine": (178, 13, 3), "iris": (149, 4, 3), "diabetes": (442, 10, 0)}


@pytest.mark.parametrize("name", TABLES)
def test_bundled_tables_are_whole_and_split(name: str) -> None:
    rows, features, classes = TABLES[name]
    found = data.get(name).load()
    assert (tuple(found.inputs.shape), found.shape, found.classes) == ((rows, features), (features,), classes)
    assert found.heldout_rows == round(0.2 * rows)
    training, heldout = ({row.numpy().tobytes() for row in part[0]} for part in (found.train, found.heldout))
    assert len(training) + len(heldout) == rows  # every row once
    assert not training & heldout
    if classes:
        assert set(found.train[1].tolist()) == set(found.heldout[1].tolist()) == set(range(classes))


@pytest.mark.parametrize("name", TABLES)
def test_features_are_standardised_by_the_training_rows(name: str) -> None:
    inputs = data.get(name).load().train[0].double()
    torch.testing.assert_close(inputs.mean(0), torch.zeros(TABLES[name][1], dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(inputs.std(0, correction=0), torch.ones(TABLES[name][1], dtype=torch.float64), rtol=0, atol=1e-6)


def test_amounts_are_an_increasing_line_of_what_was_read() -> None:
    found, raw = data.get("diabetes").load(), datasets.load_diabetes(return_X_y=True, scaled=False)[1]
    assert found.labels.dtype == torch.float32
    ours, theirs = np.sort(found.labels.double().numpy()), np.sort(raw)
    slope, offset = np.polyfit(ours, theirs, 1)
    np.testing.assert_allclose(slope * ours + offset, theirs, rtol=1e-5)
    training = slope * found.train[1].double().numpy() + offset
    assert slope == pytest.approx(training.std(), rel=1e-5)
    assert offset == pytest.approx(training.mean(), rel=1e-5)


def test_rows_keep_their_amounts() -> None:
    inputs = np.random.default_rng(0).normal(size=(60, 3)) * [1e-4, 1.0, 1e5]
    found = data.make_data_set("own", inputs, inputs @ [1e4, 2.0, 1e-5], amounts=True)
    residual = np.linalg.lstsq(found.inputs.double().numpy(), found.labels.double().numpy(), rcond=None)[1]
    assert float(residual[0]) < 1e-9  # a table is no image: the smallest feature counts as much as the largest
    assert found.classes == 0


def test_a_constant_feature_is_zero() -> None:
    inputs = np.stack([np.arange(10.0), np.full(10, 7.0)], 1)
    found = data.make_data_set("own", inputs, np.arange(10) % 2)
    assert not found.inputs[:, 1].any()
    assert found.inputs[:, 0].any()


def test_amounts_come_from_csv_files(tmp_path: Path) -> None:
    path = tmp_path / "houses.csv"
    path.write_text("rooms,price\n" + "".join(f"{i},{i * 1.5 + 2}\n" for i in range(20)))
    found = data.from_csv(path, label="price", amounts=True)
    torch.testing.assert_close(found.labels, found.inputs[:, 0])  # a line through the mean, both standardised
    with pytest.raises(ConfigError, match=r"row 1, column 'price' must be an integer, got '2\.0'"):
        data.from_csv(path, label="price")


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ([1.0, np.nan, 2.0, 3.0], "amounts must be finite, got nan in row 1; drop or fill"),
        ([4.0] * 4, "all amounts are 4; there is nothing"),
    ],
)
def test_bad_amounts_are_named(amounts: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"data set 'mine': {message}"):
        data.make_data_set("mine", [[1.0], [2.0], [3.0], [4.0]], amounts, amounts=True, heldout_rows=1)
