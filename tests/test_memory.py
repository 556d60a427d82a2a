"""The allocator's settings: taken on glibc, left alone elsewhere."""

import ctypes
import sys
from types import SimpleNamespace

import pytest

from metaopt.memory import keep_freed_memory


@pytest.fixture(autouse=True)
def fresh():
    keep_freed_memory.cache_clear()
    yield
    keep_freed_memory.cache_clear()


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs glibc")
def test_glibc_takes_every_setting() -> None:
    assert keep_freed_memory()


@pytest.mark.parametrize("refused", [-1, -2, -3])
def test_a_refused_setting_is_told(monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    libc = SimpleNamespace(gnu_get_libc_version=None, mallopt=lambda name, value: int(name != refused))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    assert not keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    musl = SimpleNamespace(mallopt=lambda name, value: calls.append(name) or 1)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: musl)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not keep_freed_memory()
    keep_freed_memory.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
    assert calls == []


def test_it_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    libc = SimpleNamespace(gnu_get_libc_version=None, mallopt=lambda name, value: calls.append(name) or 1)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    assert keep_freed_memory()
    assert keep_freed_memory()
    assert len(calls) == 3
