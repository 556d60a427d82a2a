"""The guard against configs that no machine can hold."""

import pytest

from metaopt.config import load_config
from metaopt.config.limits import check_memory, estimate_bytes, machine_bytes
from metaopt.errors import ConfigError


def test_estimate_grows_with_what_is_held() -> None:
    base = estimate_bytes(load_config("quickstart"))
    assert estimate_bytes(load_config("quickstart", ["outer.shard_particles=16"])) == 2 * base
    assert base < estimate_bytes(load_config("quickstart", ["tasks.1.shards=9"])) < 9 * base
    assert estimate_bytes(load_config("quickstart", ["outer.steps=9"])) == base


def test_bundled_configs_fit_a_laptop() -> None:
    for name in ("quickstart", "celo2_base", "mlp_pes", "learnable_adam"):
        check_memory(load_config(name), 4 * 2**30)
    assert machine_bytes() > 2**28


def test_absurd_config_is_refused_with_the_estimate() -> None:
    config = load_config("quickstart", ["outer.shard_particles=100000000"])
    with pytest.raises(
        ConfigError, match=r"^outer\.shard_particles = 100000000 pairs in 4 shards need about [\d,.]+ GiB, and there are 8\.0 GiB"
    ):
        check_memory(config, 8 * 2**30)
