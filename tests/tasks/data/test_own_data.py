"""Data sets from users' files and objects: what was written comes back, and what cannot be used is named."""

import gzip
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metaopt.errors import ConfigError
from metaopt.tasks.data import from_csv, from_hugging_face, from_idx, from_image_folder, from_npz, from_torch, from_torchvision

IMAGES = (np.arange(10 * 3 * 4).reshape(10, 3, 4) * 7 % 256).astype(np.uint8)
LABELS = np.arange(10) % 2


def same(found, images=IMAGES, labels=LABELS) -> None:
    """The data set holds exactly these examples, in any order, each with its label."""
    if len(found.shape) == 1:  # each column of a table is standardised on its own
        columns = [(found.inputs[:, [i]], images[:, [i]]) for i in range(images.shape[1])]
        for inputs, column in columns:
            same(replace(found, inputs=inputs, shape=(1, 1)), column, labels)
        return
    mean, deviation = float(found.train[0].double().mean()), float(found.train[0].double().std(correction=0))
    assert (mean, deviation) == (pytest.approx(0.0, abs=1e-5), pytest.approx(1.0, abs=1e-5))
    flat = images.reshape(len(images), -1).astype(float)
    scaled = found.inputs.double().numpy()
    slope = (flat.max() - flat.min()) / (scaled.max() - scaled.min())
    back = np.round((scaled - scaled.min()) * slope + flat.min(), 3)
    want = {(tuple(np.round(row, 3).tolist()), int(label)) for row, label in zip(flat, labels, strict=True)}
    assert {(tuple(row.tolist()), int(label)) for row, label in zip(back, found.labels, strict=True)} == want


def idx(array: np.ndarray) -> bytes:
    code = {"uint8": 8, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}[array.dtype.name]
    return (
        bytes([0, 0, code, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


def write_idx(folder: Path, prefix: str = "train", images=IMAGES, labels=LABELS, suffix: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels.astype(np.uint8))):
        content = idx(array)
        (folder / (name + suffix)).write_bytes(gzip.compress(content) if suffix else content)
    return folder / f"{prefix}-images-idx3-ubyte{suffix}"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_idx_files_come_back(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = write_idx(tmp_path / "own", images=IMAGES.astype(dtype), suffix=suffix)
    found = from_idx(path)
    assert (found.name, found.shape, found.classes) == ("own", (1, 3, 4), 2)
    same(found)
    same(from_idx(path.parent))


def test_an_idx_folder_with_a_test_part_keeps_it_held_out(tmp_path: Path) -> None:
    write_idx(tmp_path)
    write_idx(tmp_path, "t10k", images=IMAGES[:3], labels=LABELS[:3])
    found = from_idx(tmp_path, name="mine")
    assert (found.name, found.heldout_rows) == ("mine", 3)
    assert found.heldout[1].tolist() == LABELS[:3].tolist()


def test_npz_and_torch_files_come_back(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", x=IMAGES, y=LABELS)
    same(from_npz(tmp_path / "plain.npz"))
    np.savez_compressed(tmp_path / "parts.npz", x_train=IMAGES[:8], y_train=LABELS[:8], x_test=IMAGES[8:], y_test=LABELS[8:])
    parts = from_npz(tmp_path / "parts.npz", name="other")
    same(parts)
    assert (parts.name, parts.heldout_rows) == ("other", 2)
    torch.save({"x": torch.tensor(IMAGES), "y": torch.tensor(LABELS)}, tmp_path / "t.pt")
    same(from_torch(tmp_path / "t.pt"))


def test_csv_files_come_back(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,kind,b\n" + "".join(f"{i},{i % 2},{i * 0.5}\n" for i in range(10)))
    features = np.stack([np.arange(10.0), np.arange(10) * 0.5], 1)
    found = from_csv(path, label="kind")
    assert (found.name, found.shape) == ("table", (2,))
    same(found, features)
    path.write_text("a,b,kind\n" + "".join(f"{i},{i * 0.5},{i % 2}\n" for i in range(10)))
    same(from_csv(path), features)


def write_folder(root: Path, size: tuple[int, int] = (4, 3)) -> Path:
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).resize(size, Image.Resampling.NEAREST).save(root / ("cat", "dog")[LABELS[i]] / f"{i:02}.png")
    (root / "cat" / "notes.txt").write_text("not an image")
    return root


def test_folders_of_images_come_back(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets")
    found = from_image_folder(root)
    assert (found.name, found.shape, found.classes) == ("pets", (1, 3, 4), 2)
    same(found)
    colour = from_image_folder(root, colour=True, side=2)
    assert colour.shape == (3, 2, 2)
    assert torch.equal(colour.inputs[:, :4], colour.inputs[:, 4:8])  # grey images have equal channels


class Torchvision:
    """The interface of a torchvision data set: a length, and items (image, label)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, i: int):
        if i >= len(IMAGES):
            raise IndexError(i)
        image = {
            "pil": lambda: Image.fromarray(IMAGES[i]),
            "array": lambda: IMAGES[i][..., None],
            "tensor": lambda: torch.tensor(IMAGES[i])[None],
        }
        return image[self.kind](), int(LABELS[i])


@pytest.mark.parametrize("kind", ["pil", "array", "tensor"])
def test_torchvision_s_interface_is_read(kind: str) -> None:
    found = from_torchvision(Torchvision(kind))
    assert (found.name, found.shape) == ("torchvision", (1, 3, 4))
    same(found)
    both = from_torchvision(Torchvision(kind), Torchvision(kind), name="both")
    assert (both.name, both.heldout_rows, len(both.labels)) == ("both", 10, 20)


class HuggingFace(list):
    """The interface of a Hugging Face data set: iteration over dicts."""


def rows(image: str = "image") -> HuggingFace:
    return HuggingFace(
        {image: Image.fromarray(pixels).convert("RGB"), "label": int(label)} for pixels, label in zip(IMAGES, LABELS, strict=True)
    )


def test_hugging_face_s_interface_is_read() -> None:
    found = from_hugging_face(rows(), name="pets")
    assert (found.name, found.shape) == ("pets", (3, 3, 4))
    same(found, np.repeat(IMAGES[:, None], 3, 1))
    assert from_hugging_face(rows("img"), rows("img"), image="img").heldout_rows == 10


class Boom:
    """What a pickle must never be allowed to make."""

    def __reduce__(self):
        return (Path.touch, (Path("boom"),))


def bad_files(folder: Path) -> dict[str, tuple[object, str]]:
    """Return case -> (call, message)."""
    idx_path = write_idx(folder / "cut")
    idx_path.write_bytes(idx_path.read_bytes()[:-1])
    (folder / "noise-images-idx3").write_bytes(b"PNG....")
    (folder / "short-images-idx3").write_bytes(bytes([0, 0, 8, 3, 0, 0]))
    gz = write_idx(folder / "gz", suffix=".gz")
    gz.write_bytes(gz.read_bytes()[:-12])
    lonely = folder / "lonely" / "train-images-idx3-ubyte"
    lonely.parent.mkdir()
    lonely.write_bytes(idx(IMAGES))
    np.savez(folder / "pickled.npz", x=np.array([Boom(), None], dtype=object), y=LABELS)
    np.savez(folder / "names.npz", images=IMAGES, labels=LABELS)
    np.savez(folder / "parts.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:, :2], y_test=LABELS)
    np.save(folder / "single.npy", IMAGES)
    (folder / "text.npz").write_text("hello")
    np.savez(folder / "half.npz", x=IMAGES, y=LABELS)
    flipped = bytearray((folder / "half.npz").read_bytes())
    flipped[200] ^= 0xFF
    (folder / "flipped.npz").write_bytes(flipped)
    (folder / "half.npz").write_bytes((folder / "half.npz").read_bytes()[:200])
    with (folder / "boom.pt").open("wb") as file:
        pickle.dump({"x": Boom()}, file)
    torch.save({"x": Boom(), "y": torch.tensor(LABELS)}, folder / "object.pt")
    torch.save(torch.tensor(LABELS), folder / "bare.pt")
    torch.save({"x": [[1.0], [2.0, 3.0]], "y": [0, 1]}, folder / "ragged.pt")
    (folder / "broken.pt").write_bytes(b"PK\x03\x04nonsense")
    tables = {
        "words": "a,y\n1,cat\n2,dog\n", "float": "a,y\n1,0\n2,1.5\n", "cell": "a,y\n1,0\nx,1\n", "gap": "a,y\n1,0\n,1\n",
        "ragged": "a,y\n1,0\n1,2,3\n", "empty": "", "nan": "a,y\n1,0\n2,1\nnan,1\n4,1\n5,1\n",
    }  # fmt: skip
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)
    one = folder / "one"
    (one / "cat").mkdir(parents=True)
    hollow = write_folder(folder / "hollow")
    (hollow / "emu").mkdir()
    sizes = write_folder(folder / "sizes")
    Image.fromarray(IMAGES[0][:2]).save(sizes / "dog" / "zz.png")
    damaged = write_folder(folder / "damaged")
    (damaged / "cat" / "00.png").write_bytes(b"not a png")
    return {
        "missing idx": (lambda: from_idx(folder / "nothing"), "IDX file or folder .*nothing does not exist; check the path"),
        "cut idx": (lambda: from_idx(idx_path), "has 135 bytes, but its header announces 136; it is cut or damaged"),
        "cut gzip": (lambda: from_idx(gz), "is cut or not gzip"),
        "not idx": (lambda: from_idx(folder / "noise-images-idx3", LABELS), "is not an IDX file: it begins with 504e472e"),
        "short header": (lambda: from_idx(folder / "short-images-idx3", folder), "but its header announces"),
        "no labels": (lambda: from_idx(lonely), "IDX file of labels .*train-labels-idx1-ubyte does not exist"),
        "labels unknown": (lambda: from_idx(folder / "text.npz"), "its name lacks images-idx3; name their file with labels="),
        "empty idx folder": (lambda: from_idx(one), r"has no train-images-idx3-ubyte \(nor train-images-idx3-ubyte.gz\)"),
        "missing npz": (lambda: from_npz(folder / "no.npz"), "npz file .*no.npz does not exist"),
        "pickled npz": (lambda: from_npz(folder / "pickled.npz"), "holds pickled objects, which could run code"),
        "names": (lambda: from_npz(folder / "names.npz"), "must hold the arrays x and y, .* it holds images, labels"),
        "part shapes": (lambda: from_npz(folder / "parts.npz"), r"one shape an example, got \(3, 4\) and \(2, 4\)"),
        "npy": (lambda: from_npz(folder / "single.npy"), "is not an npz file, or is cut; save inputs and labels with np.savez"),
        "text": (lambda: from_npz(folder / "text.npz"), "is not an npz file, or is cut"),
        "half an npz": (lambda: from_npz(folder / "half.npz"), "is not an npz file, or is cut"),
        "flipped bit": (lambda: from_npz(folder / "flipped.npz"), "is not a readable npz file .*CRC"),
        "pickle": (lambda: from_torch(folder / "boom.pt"), "holds more than tensors and plain containers, which could run code"),
        "object": (lambda: from_torch(folder / "object.pt"), "holds more than tensors and plain containers, which could run code"),
        "bare tensor": (lambda: from_torch(folder / "bare.pt"), "must hold a dict of tensors x and y, got Tensor"),
        "ragged tensor": (lambda: from_torch(folder / "ragged.pt"), "x is ragged; all examples must have one shape"),
        "broken torch": (lambda: from_torch(folder / "broken.pt"), "is not a readable torch file"),
        "words": (lambda: from_csv(folder / "words.csv"), "row 1, column 'y' must be an integer, got 'cat'"),
        "fraction": (lambda: from_csv(folder / "float.csv"), "row 2, column 'y' must be an integer, got '1.5'"),
        "cell": (lambda: from_csv(folder / "cell.csv"), "row 2, column 'a' must be a number, got 'x'"),
        "gap": (lambda: from_csv(folder / "gap.csv"), "row 2, column 'a' must be a number, got ''"),
        "nan": (lambda: from_csv(folder / "nan.csv"), "data set 'nan': inputs must be finite, got nan in row 2, column 0"),
        "ragged csv": (lambda: from_csv(folder / "ragged.csv"), "every row needs as many cells as the header"),
        "empty csv": (lambda: from_csv(folder / "empty.csv"), "is not a readable CSV file"),
        "no column": (lambda: from_csv(folder / "cell.csv", label="yy"), r"column 'yy' is unknown; did you mean 'y'\?"),
        "one class": (lambda: from_image_folder(one), "must have a sub-folder for each of two or more classes, got 1"),
        "empty class": (lambda: from_image_folder(hollow), "emu holds no image"),
        "two sizes": (lambda: from_image_folder(sizes), r"zz.png has size \(4, 2\), but .*png has \(4, 3\); give a side="),
        "damaged image": (lambda: from_image_folder(damaged), "00.png is not a readable image"),
        "hf column": (lambda: from_hugging_face(rows("img")), "row 0 has no column 'image'; it has img, label; name it with image="),
        "item": (lambda: from_torchvision([IMAGES[0]]), r"item 0 must be \(image, label\), got ndarray"),
        "axes": (lambda: from_torchvision([(np.zeros(3), 0)]), r"image 0 must have two or three axes, got shape \(3,\)"),
        "image sizes": (lambda: from_torchvision([(IMAGES[0], 0), (IMAGES[0][:2], 1)]), "image 1 has shape .1, 2, 4., the first one"),
        "empty": (lambda: from_torchvision([]), "data set 'list' is empty"),
    }  # fmt: skip


def test_what_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for case, (call, message) in bad_files(tmp_path).items():
        with pytest.raises(ConfigError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value), case
    assert not (tmp_path / "boom").exists()  # no file ran code
