"""Entries that ship, entries that users add, and plug-ins of installed packages."""

import re
from dataclasses import dataclass
from typing import Any

import pytest

from metaopt import registry
from metaopt.errors import ConfigError
from metaopt.registry import Registry


@dataclass
class Point:
    name: str
    value: str
    entry: object

    def load(self) -> object:
        if isinstance(self.entry, Exception):
            raise self.entry
        return self.entry


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    found: list[Point] = []

    def entry_points(group: str) -> list[Point]:
        assert group == "metaopt.things"
        return found

    monkeypatch.setattr(registry, "entry_points", entry_points)
    return found


def _things(**options: Any) -> Registry[object]:
    return Registry("thing", "metaopt.things", {"one": 1, "two": 2}, **options)


def test_it_reads_like_a_mapping(plug_ins: list[Point]) -> None:
    things = _things()
    assert (list(things), len(things), things["two"]) == (["one", "two"], 2, 2)
    assert "one" in things
    assert "three" not in things
    assert dict(things.items()) == {"one": 1, "two": 2}


def test_an_unknown_name_gets_the_nearest_one(plug_ins: list[Point]) -> None:
    with pytest.raises(ConfigError, match=r"^thing 'tow' is unknown; did you mean 'two'\? known: one, two$"):
        _things()["tow"]


def test_a_name_belongs_to_its_first_owner(plug_ins: list[Point]) -> None:
    things, entry = _things(), object()
    things.register("three", entry)
    things.register("three", entry)  # an imported module may run twice
    with pytest.raises(ConfigError, match=r"^thing 'three' is registered already; choose another name$"):
        things.register("three", object())
    assert things["three"] is entry


def test_a_refused_entry_does_not_stay_behind(plug_ins: list[Point]) -> None:
    def check(entry: object) -> None:
        if entry == "bad":
            raise ValueError("bad")

    things = _things(check=check)
    with pytest.raises(ValueError, match="bad"):
        things.register("three", "bad")
    assert "three" not in things


def test_plug_ins_come_last_and_load_once(plug_ins: list[Point]) -> None:
    plug_ins.append(Point("three", "somebody:three", 3))
    plug_ins.append(Point("one", "somebody:one", "hides a built-in one"))
    things = _things()
    assert (list(things), things["one"]) == (["one", "two", "three"], 1)
    plug_ins.append(Point("four", "somebody:four", 4))
    assert "four" not in things


def test_a_broken_plug_in_is_named(plug_ins: list[Point]) -> None:
    plug_ins.append(Point("three", "somebody.module:three", ImportError("no module")))
    told = "thing 'three': its plug-in somebody.module:three does not load (ImportError: no module); mend or uninstall it"
    with pytest.raises(ConfigError, match=f"^{re.escape(told)}$"):
        list(_things())
