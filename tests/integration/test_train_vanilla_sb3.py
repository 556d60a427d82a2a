"""The script that trains stable-baselines3's PPO runs from the command line, and refuses bad input in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.slow]


def train(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, str(ROOT / "scripts" / "train_vanilla_sb3.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


def test_it_trains_and_counts() -> None:
    done = train("--env", "CartPole-v1", "--steps", "512", "--envs", "2", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "ep_rew_mean" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("VecEnvStats(steps=512, episodes=")
    assert last.endswith("failures=0, restarts=0, rebuilds=0)")


def test_bad_input_is_one_line() -> None:
    done = train("--env", "CartPole-v99", "--workers", "1")
    assert done.returncode == 2, done.stderr
    assert "CartPole-v99" in done.stderr or "VersionNotFound" in done.stderr
    assert "Traceback" not in done.stderr
