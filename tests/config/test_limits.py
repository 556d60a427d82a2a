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


def test_validation_counts_with_all_its_particles() -> None:
    base = estimate_bytes(load_config("quickstart"))
    few, many = (estimate_bytes(load_config("quickstart", [f"validation={{every_steps: 5, particles: {n}}}"])) for n in (2, 100_000))
    assert few == base  # a step of a shard takes more
    assert many > 1000 * base
    both = estimate_bytes(load_config("quickstart", ["validation={every_steps: 5, particles: 100000}", "outer.average={}"]))
    assert both > 1.9 * many  # theta and its average, side by side
    other = estimate_bytes(load_config("quickstart", ["validation={every_steps: 5, particles: 100000, tasks: [quadratic]}"]))
    assert other < many / 2
    with pytest.raises(ConfigError, match=r" and validation\.particles = 100000 need about .* lower them or tasks\.\*\.shards$"):
        check_memory(load_config("quickstart", ["validation={every_steps: 5, particles: 100000}"]), 2**30)
