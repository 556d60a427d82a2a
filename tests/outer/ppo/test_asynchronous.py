"""Asynchronous training: the log replays to the same policy, whatever was killed; nothing is applied twice or too late."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from metaopt.cluster import LocalPool, WorkItem
from metaopt.config import PolicyConfig
from metaopt.outer.checkpoint import latest
from metaopt.outer.ppo import trainer
from metaopt.outer.ppo.snapshot import PolicySnapshot
from metaopt.outer.ppo.stages import Stages
from metaopt.outer.ppo.state import PPOState
from metaopt.outer.ppo.worker import CollectSetup, GroupWork
from metaopt.seeds import stable_hash
from tests.outer.ppo.test_trainer import kill_after
from tests.outer.ppo.toys import ToyWorld, committed, toy_config

WORLD = ToyWorld(failing=0.1, rejecting=0.2, registers=True)
OVERRIDES = ("outer.collection=async", "outer.decisions_per_step=40", "outer.max_staleness=2", "outer.steps=12")
CONFIG = toy_config(*OVERRIDES)


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "plot_policy_run", lambda rows, directory: [])


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def replayed(config: PolicyConfig, world: ToyWorld, found: list[dict[str, Any]]) -> PPOState:
    """What the log says: the groups of every step, each played by the policy of its version, in their order."""
    ppo, stages, pool = PPOState(config, world), Stages(config.outer), LocalPool(CollectSetup(config, world))
    policies = [(pool.share(ppo.weights), stages.stage)]
    for step, row in enumerate(found):
        items = []
        for number, version in row["groups"]:
            policy, stage = policies[version]
            items.append(WorkItem(version, number, 0, GroupWork(policy, version, stable_hash("group", config.seed, number), stage)))
        by_number = {result.item.work_id: result.value for result in pool.run(items, lambda item, reason: None)}
        played = [by_number[number] for number, _ in row["groups"]]
        rewards = [reward for group in played for reward in group.rewards]
        assert sum(rewards) / len(rewards) == row["reward"]
        assert ppo.learn(step, [group.episodes for group in played]) is not None
        stages.after(step + 1, row["reward"])
        policies.append((pool.share(ppo.weights), stages.stage))
    return ppo


def check(run_dir: Path, config: PolicyConfig = CONFIG) -> list[dict[str, Any]]:
    """Every promise that can be read off a finished run."""
    found = rows(run_dir)
    assert [row["step"] for row in found] == list(range(1, config.outer.steps + 1))
    groups = [(step, number, version) for step, row in enumerate(found) for number, version in row["groups"]]
    assert len({number for _, number, _ in groups}) == len(groups), "none is applied twice"
    assert all(0 <= step - version <= config.outer.max_staleness for step, _, version in groups)
    assert all(row["decisions"] >= 40 for row in found)
    last = latest(run_dir / "checkpoints")
    assert last is not None
    kept, expected = PolicySnapshot.read(last), replayed(config, WORLD, found)
    for module in ("network", "critic"):
        assert all(torch.equal(value, kept.ppo[module][name]) for name, value in expected.weights[module].items()), module
    applied = {number for _, number, _ in groups}
    fates = len(applied) + len(kept.collector["flying"]) + sum(row["stale"] for row in found) + kept.totals["quarantined"]
    assert kept.collector["issued"] == fates, "every group was applied, dropped, given up, or is under way"
    return found


def test_the_log_of_a_run_in_this_process_replays_to_the_same_bytes(tmp_path: Path) -> None:
    config = toy_config(*OVERRIDES, "outer.curriculum=[{families: [quadratic], most_decisions: 3, until_frac: 0.5}, {}]")
    trainer.train(config, tmp_path / "run", world=WORLD)
    found = check(tmp_path / "run", config)
    assert all(row["staleness"] == 0 for row in found), "nobody plays while this process learns"
    assert [row["stage"] for row in found] == [0] * 6 + [1] * 6


def test_in_this_process_stop_and_resume_is_bitwise(tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int, numbers: object = None) -> None:
        if done == 5:
            signal.raise_signal(signal.SIGTERM)

    trainer.train(CONFIG, tmp_path / "whole", world=WORLD)
    assert trainer.train(CONFIG, tmp_path / "run", progress=stop, world=WORLD).stopped
    trainer.train(CONFIG, tmp_path / "run", resume=True, world=WORLD)
    assert committed(tmp_path / "run") == committed(tmp_path / "whole")


@pytest.mark.ray
def test_workers_that_never_wait_are_replayed(tmp_path: Path, ray_session: object) -> None:
    trainer.train(CONFIG, tmp_path / "run", workers=2, world=WORLD)
    found = check(tmp_path / "run")
    assert max(row["staleness"] for row in found) >= 1, "somebody played while the policy learned"


@pytest.mark.chaos
@pytest.mark.ray
def test_a_killed_worker_costs_nothing_but_time(tmp_path: Path, ray_session: object) -> None:
    marker = tmp_path / "killed"
    world = ToyWorld(failing=0.1, rejecting=0.2, registers=True, kill=str(marker))
    run = trainer.train(CONFIG, tmp_path / "run", workers=2, world=world)
    assert marker.exists()
    assert run.quarantined == 0
    check(tmp_path / "run")


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_driver_goes_on_from_its_last_commit(tmp_path: Path, ray_session: object) -> None:
    kill_after(tmp_path / "run", 7, 2, *OVERRIDES)
    trainer.train(CONFIG, tmp_path / "run", workers=2, resume=True, world=WORLD)
    check(tmp_path / "run")
