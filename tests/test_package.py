"""The package as a whole: what importing it costs, its devices, its front door."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import metaopt
from metaopt import api
from metaopt.config import load_config
from metaopt.devices import available_devices, resolve_device
from metaopt.errors import ConfigError


@pytest.mark.parametrize("statement", ["import metaopt", "import metaopt.cli.train, metaopt.config, metaopt.learners, metaopt.tasks"])
def test_import_pulls_in_nothing_heavy(statement: str) -> None:
    code = f"{statement}; import sys; print({{'ray', 'stable_baselines3', 'gymnasium', 'matplotlib', 'higher'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout == "set()\n"


def test_public_names_resolve() -> None:
    assert set(metaopt.__all__) == set(dir(metaopt))
    for name in metaopt.__all__:
        assert getattr(metaopt, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = metaopt.nothing


def test_versions_agree() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert f'version = "{metaopt.__version__}"' in text


def test_auto_is_the_best_device_and_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert str(resolve_device("auto")) == available_devices()[0]


def test_cuda_devices_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert available_devices() == ("cuda:0", "cuda:1", "cpu")
    assert resolve_device("cuda") == resolve_device("auto") == torch.device("cuda:0")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"^device 'cuda:2' is not on this machine; there are: cuda:0, cuda:1, cpu$"):
        resolve_device("cuda:2")


def test_a_loaded_config_takes_no_overrides() -> None:
    with pytest.raises(ConfigError, match=r"^overrides and seed need a config's name or path, got a loaded one"):
        api.train(load_config("quickstart"), seed=3)
