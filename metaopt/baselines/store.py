"""The store of baseline curves: computed once, shipped with the package, never trusted past the code that made them.

A curve lies under the hash of everything that determines it (`CurveKey`), in one safetensors file that repeats the key. Look-ups read the
bundled folder first, then the user's cache; new curves go to the cache.
"""

import hashlib
import json
import os
import platform
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError, safe_open

from metaopt import learners
from metaopt.baselines.catalogue import SCHEDULE, Baseline
from metaopt.baselines.code_version import code_version
from metaopt.baselines.runs import Curves, Job
from metaopt.tasks import TaskSpec

__all__ = ["CurveKey", "Store"]

BUNDLED = Path(__file__).parent / "store"
_FIELDS = ("steps", "heldout", "train", "diverged")


@dataclass(frozen=True)
class CurveKey:
    """Everything that determines one stored set of curves.

    Attributes:
        spec: the task; its horizon is the budget and the end of the schedule.
        baseline: the optimizer.
        rates: learning rates, one block of runs each.
        seeds: inner seeds of each block.
    """

    spec: TaskSpec
    baseline: Baseline
    rates: tuple[float, ...]
    seeds: tuple[int, ...]

    def to_json(self) -> str:
        """Return the canonical JSON text of the key, code version included."""
        content = {
            "task": asdict(self.spec),
            "baseline": asdict(self.baseline),
            "schedule": SCHEDULE,
            "rates": self.rates,
            "seeds": self.seeds,
            "code": code_version(self.spec.family),
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @property
    def file_name(self) -> str:
        """Name of the curve's file."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=16).hexdigest() + ".safetensors"

    def job(self, device: str = "cpu") -> Job:
        """Return the job that computes the curves: all rates and seeds as one run, the rate being a stacked meta-parameter."""
        learner = learners.get(self.baseline.rule, schedule=SCHEDULE)
        rates = torch.tensor(self.rates).repeat_interleave(len(self.seeds))
        return Job(learner, {"lr": rates}, self.spec, self.seeds * len(self.rates), theta_stacked=True, device=device)

    def at(self, curves: Curves, rate: float) -> Curves:
        """Return the runs of one rate."""
        i = self.rates.index(rate) * len(self.seeds)
        return curves.runs(slice(i, i + len(self.seeds)))


class Store:
    """Curves on disk: `folders` are read in order, the last one is written.

    Args:
        folders: default: the bundled store, then `$METAOPT_CACHE/baselines` (by default `~/.cache/metaopt/baselines`).
    """

    def __init__(self, folders: tuple[Path, ...] | None = None) -> None:
        self.folders = folders or (BUNDLED, _user_cache())
        self._used: set[str] = set()

    def get(self, key: CurveKey) -> Curves | None:
        """Return stored curves, or None if there are none for exactly this key; a damaged file, or one with another key, counts as none."""
        text = key.to_json()
        self._used.add(key.file_name)
        for folder in self.folders:
            try:
                with safe_open(folder / key.file_name, framework="np") as file:
                    if (file.metadata() or {}).get("key") != text:
                        continue
                    arrays = {name: file.get_tensor(name) for name in _FIELDS}
            except (OSError, SafetensorError):
                continue
            return Curves(*(arrays[name].astype(bool if name == "diverged" else np.float64) for name in _FIELDS))
        return None

    def put(self, key: CurveKey, curves: Curves) -> None:
        """Write curves (losses as float32) so that the file appears whole or not at all; last writer wins with equal content."""
        folder = self.folders[-1]
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(getattr(curves, name), dtype=bool if name == "diverged" else np.float32) for name in _FIELDS}
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        content = safetensors.numpy.save(arrays, metadata={"key": key.to_json(), **versions})
        handle, temporary = tempfile.mkstemp(prefix=".curves-", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, folder / key.file_name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def prune(self) -> int:
        """Remove all curves from the last folder that this object was not asked for, and return how many they were."""
        unused = [path for path in self.folders[-1].glob("*.safetensors") if path.name not in self._used]
        for path in unused:
            path.unlink()
        return len(unused)


def _user_cache() -> Path:
    root = os.environ.get("METAOPT_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "metaopt")
    return Path(root) / "baselines"
