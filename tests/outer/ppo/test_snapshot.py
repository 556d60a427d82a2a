"""A snapshot comes back from a checkpoint bit for bit."""

from pathlib import Path

import pytest
import torch

from metaopt.errors import CorruptCheckpointError
from metaopt.outer import checkpoint
from metaopt.outer.checkpoint import Meta
from metaopt.outer.ppo.collect import play
from metaopt.outer.ppo.snapshot import PolicySnapshot
from metaopt.outer.ppo.state import PPOState
from tests.outer.ppo.toys import ToyBucket, ToyWorld, toy_config

CONFIG, WORLD = toy_config(), ToyWorld()


def snapshot() -> PolicySnapshot:
    ppo = PPOState(CONFIG, WORLD)
    ppo.learn(0, [play(WORLD.make(), ppo.network, ppo.critic, ToyBucket("quadratic", 8, 2), 1, 0).episodes])
    pending = {"issued": 7, "flying": [5, 6]}
    return PolicySnapshot(
        3, ppo.state(), {"index": 1, "rewards": [-0.1, 0.30000000000000004]}, pending, {"skipped": 2}, {"metrics": 3, "timing": 4}
    )


def test_round_trip(tmp_path: Path) -> None:
    before = snapshot()
    found = PolicySnapshot.read(checkpoint.save(tmp_path, 3, before.files(CONFIG), Meta(CONFIG.hash, {})))
    for name in ("step", "stages", "collector", "totals", "rows"):
        assert getattr(found, name) == getattr(before, name), name
    for part in ("network", "critic"):
        assert set(found.ppo[part]) == set(before.ppo[part])
        assert all(torch.equal(value, found.ppo[part][name]) for name, value in before.ppo[part].items())
    assert found.ppo["average"]["count"] == 1
    assert found.files(CONFIG) == before.files(CONFIG)
    ppo = PPOState(CONFIG, WORLD)
    ppo.load(found.ppo)
    assert all(torch.equal(value, ppo.averaged[name]) for name, value in ppo.weights["network"].items())


def test_equal_states_have_equal_bytes() -> None:
    assert snapshot().files(CONFIG) == snapshot().files(CONFIG)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    files = snapshot().files(CONFIG)
    del files["critic.safetensors"]
    with pytest.raises(CorruptCheckpointError, match=r"critic\.safetensors"):
        PolicySnapshot.read(checkpoint.save(tmp_path, 3, files, Meta(CONFIG.hash, {})))
