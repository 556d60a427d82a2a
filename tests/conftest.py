"""What several test packages share: the import path of `tests`, and one Ray for the whole run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # helper modules are imported as tests.<package>.<module>, by Ray's processes too
    sys.path.insert(0, str(ROOT))


torch.set_num_threads(1)  # test processes share two cores, and threads that wait for each other spin


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep all Ray tests in one process of pytest-xdist: starting a Ray takes longer than all of them."""
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture(scope="session", autouse=True)
def cache_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests out of the user's cache, and the user's cache out of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAOPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray of four logical CPUs; pools that find it use it and leave it running."""
    from metaopt.cluster.ray_start import start_ray

    owns = start_ray(None, 4)
    yield
    if owns:
        import ray

        ray.shutdown()
