"""Pictures as tables: every pixel once, sums of the original, neighbours that tell of each other."""

import numpy as np
import pytest
from PIL import Image

from metaopt.tasks.data.data_set import package_folder
from metaopt.tasks.data.pictures import PICTURES


def picture(name: str) -> np.ndarray:
    """Return the standardised picture [32, 32], put together from its table."""
    found = PICTURES[name].load()
    places = [np.unique(column.numpy(), return_inverse=True)[1] for column in found.inputs.T]
    whole = np.full((32, 32), np.nan)
    whole[tuple(places)] = found.labels.numpy()
    return whole


@pytest.mark.parametrize("name", PICTURES)
def test_every_pixel_is_there_once_and_a_fifth_is_held_out(name: str) -> None:
    found = PICTURES[name].load()
    assert not np.isnan(picture(name)).any()
    assert (len(found.labels), found.heldout_rows, found.shape, found.classes) == (1024, 205, (2,), 0)


def test_pixels_are_sums_over_squares_of_the_original() -> None:
    with Image.open(package_folder("test", "skimage", "scikit-image") / "data" / "brick.png") as image:
        middle = np.asarray(image.convert("L"))[208:304, 208:304].astype(float)  # 96 of 512 pixels
    want = middle.reshape(32, 3, 32, 3).mean((1, 3))
    assert np.corrcoef(picture("brick").reshape(-1), want.reshape(-1))[0, 1] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", PICTURES)
def test_a_pixel_follows_from_its_neighbours(name: str) -> None:
    whole = picture(name)
    around = (whole[:-2, 1:-1] + whole[2:, 1:-1] + whole[1:-1, :-2] + whole[1:-1, 2:]) / 4
    assert ((around - whole[1:-1, 1:-1]) ** 2).mean() < 0.3 * whole.var()
