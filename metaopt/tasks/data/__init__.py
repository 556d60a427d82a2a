"""Named data sets, read when they are first needed, and ways to bring one's own.

`register("name", lambda: from_npz("file.npz"))` names a data set; `metaopt.tasks.image_family` and `tabular_family` make task families
of it.
"""

from collections.abc import Callable

from metaopt.errors import ConfigError
from metaopt.names import nearest
from metaopt.tasks.data.adapters import from_hugging_face, from_torchvision
from metaopt.tasks.data.data_set import DataSet, Source, make_data_set
from metaopt.tasks.data.digits import DIGITS
from metaopt.tasks.data.faces import FACES
from metaopt.tasks.data.files import from_csv, from_idx, from_npz, from_torch
from metaopt.tasks.data.image_folder import from_image_folder
from metaopt.tasks.data.mnist import MNIST
from metaopt.tasks.data.mnist1d import MNIST1D
from metaopt.tasks.data.tables import BREAST_CANCER, DIABETES, IRIS, WINE
from metaopt.tasks.data.textures import TEXTURES

__all__ = [
    "DataSet",
    "Source",
    "from_csv",
    "from_hugging_face",
    "from_idx",
    "from_image_folder",
    "from_npz",
    "from_torch",
    "from_torchvision",
    "get",
    "make_data_set",
    "names",
    "register",
]

_BUNDLED = (DIGITS, MNIST, FACES, TEXTURES, MNIST1D, BREAST_CANCER, WINE, IRIS, DIABETES)
_SOURCES: dict[str, Source] = {source.name: source for source in _BUNDLED}


def register(name: str, loader: Callable[[], DataSet]) -> Source:
    """Name a data set and return its source. The loader is called once, here, to learn shape and classes.

    Raises:
        ConfigError: the name is taken, or what the loader raises.
    """
    if name in _SOURCES:
        raise ConfigError(f"data set {name!r} is registered already; choose another name")
    found = loader()
    source = Source(name, lambda: found, found.shape, found.classes, found.digest, "the loader that it was registered with")
    _SOURCES[name] = source
    return source


def names() -> tuple[str, ...]:
    """Return the names of all data sets."""
    return tuple(_SOURCES)


def get(name: str) -> Source:
    """Return the source of a data set; nothing is read.

    Raises:
        ConfigError: no such data set; the message has the nearest name.
    """
    if name not in _SOURCES:
        raise ConfigError(f"data set {name!r} is unknown{nearest(name, _SOURCES)}")
    return _SOURCES[name]
