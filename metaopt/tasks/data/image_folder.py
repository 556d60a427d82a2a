"""Data sets from folders of images: one sub-folder a class, as most tools write them."""

from pathlib import Path

import numpy as np

from metaopt.errors import ConfigError
from metaopt.tasks.data.data_set import DataSet, make_data_set
from metaopt.tasks.data.files import existing

__all__ = ["from_image_folder"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def from_image_folder(path: str | Path, side: int | None = None, colour: bool = False, name: str = "") -> DataSet:
    """Return the data set of a folder whose sub-folders are the classes, in the order of their names.

    Args:
        path: the folder; files that are no images, and names with a leading dot, are passed over.
        side: bring every image to `side` x `side` pixels by averaging over areas; default: all must have one size.
        colour: keep red, green and blue; default: grey.
        name: default: the folder's name.

    Raises:
        ConfigError: pillow is missing, there is no folder, fewer than two classes, a class without images, a damaged image, or one of
            another size.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError:
        raise ConfigError(f"folder of images {path} needs the package pillow: pip install 'metaopt-platform[data]'") from None
    found = existing(path, "folder of images")
    classes = sorted(entry for entry in found.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        raise ConfigError(f"{found} must have a sub-folder for each of two or more classes, got {len(classes)}")
    images, labels = [], []
    first: tuple[Path, tuple[int, int]] | None = None
    for label, folder in enumerate(classes):
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES and not file.name.startswith("."))
        if not files:
            raise ConfigError(f"{folder} holds no image ({', '.join(_SUFFIXES)}); remove the folder or fill it")
        for file in files:
            try:
                with Image.open(file) as opened:
                    image = opened.convert("RGB" if colour else "L")
            except (UnidentifiedImageError, OSError) as error:
                raise ConfigError(f"{file} is not a readable image ({error}); remove or replace it") from None
            if side is not None:
                image = image.resize((side, side), Image.Resampling.BOX)
            first = first or (file, image.size)
            if image.size != first[1]:
                raise ConfigError(f"{file} has size {image.size}, but {first[0]} has {first[1]}; give a side= to bring all to one size")
            pixels = np.asarray(image, dtype=np.uint8)
            images.append(pixels.transpose(2, 0, 1) if colour else pixels[None])
            labels.append(label)
    return make_data_set(name or found.absolute().name, np.stack(images), np.asarray(labels), classes=len(classes))
