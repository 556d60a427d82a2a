"""The store of curves: computed once, shipped with the package, never trusted past the code that made them.

A curve lies under the hash of everything that determines it (of a baseline: `CurveKey`), in one compressed safetensors file that
repeats the key. Look-ups read the bundled folder first, then the user's cache; new curves go to the cache.
"""

import gzip
import hashlib
import json
import os
import platform
import tempfile
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from metaopt.baselines.catalogue import Baseline
from metaopt.baselines.code_version import code_version
from metaopt.baselines.optimizer_code import optimizer_code
from metaopt.baselines.runs import EVALUATIONS, Curves, Job
from metaopt.baselines.space import Trial
from metaopt.tasks import TaskSpec
from metaopt.tasks.number_shifts import is_shifted

__all__ = ["CurveKey", "Key", "Store", "user_cache"]

BUNDLED = Path(__file__).parent / "store"
_SUFFIX = ".safetensors.gz"


class Key(Protocol):
    """What curves are filed under."""

    def to_json(self) -> str:
        """Return a canonical text of everything that determines the curves."""

    def kept(self, curves: Curves) -> Curves:
        """Return what the store gives back for these curves, so that fresh ones and stored ones are equal."""


@dataclass(frozen=True)
class CurveKey:
    """Everything that determines one stored set of curves.

    Attributes:
        spec: the task; its horizon is the budget and the end of the schedule.
        baseline: optimizer and schedule.
        trials: choices of hyperparameters, one block of runs each.
        seeds: inner seeds of each block.
        keep: `all` losses, only the `heldout` ones (an envelope), or only the last held-out loss of each run (a search): what nobody
            reads is not kept, and where only the end counts, no other point is evaluated.
    """

    spec: TaskSpec
    baseline: Baseline
    trials: tuple[Trial, ...]
    seeds: tuple[int, ...]
    keep: Literal["all", "heldout", "finals"] = "all"

    def to_json(self) -> str:
        """Return the canonical JSON text of the key, code versions included. Search spaces are not in it: the trials themselves are."""
        one = self.baseline
        content: dict[str, Any] = {
            "task": asdict(self.spec),
            "optimizer": {"rule": one.rule, "options": one.options, "schedule": one.schedule},
            "trials": [trial.values for trial in self.trials],
            "seeds": self.seeds,
            "keep": self.keep,
            "code": [code_version(self.spec.family, is_shifted(self.spec.values)), optimizer_code(one.learner())],
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    def kept(self, curves: Curves) -> Curves:
        """Return what the store gives back for these curves, so that fresh ones and stored ones are equal."""
        stored = curves.stored()
        if self.keep == "all":
            return stored
        first = -1 if self.keep == "finals" else 0
        return replace(stored, steps=stored.steps[first:], heldout=stored.heldout[first:], train=stored.train[:0])

    @property
    def file_name(self) -> str:
        """Name of the curve's file."""
        return _file_name(self.to_json())

    @property
    def work(self) -> int:
        """Inner steps of all runs together."""
        return self.spec.horizon * len(self.trials) * len(self.seeds)

    def job(self, device: str = "cpu") -> Job:
        """Return the job that computes the curves: all trials and seeds as one run, hyperparameters being stacked meta-parameters."""
        names = self.trials[0].hyperparameters
        values = {name: torch.tensor([trial.hyperparameters[name] for trial in self.trials]) for name in names}
        theta = {name: value.repeat_interleave(len(self.seeds)) for name, value in values.items()}
        points = 1 if self.keep == "finals" else EVALUATIONS
        seeds = self.seeds * len(self.trials)
        return Job(self.baseline.learner(), theta, self.spec, seeds, theta_stacked=True, device=device, evaluations=points)

    def at(self, curves: Curves, trial: Trial) -> Curves:
        """Return the runs of one trial."""
        i = self.trials.index(trial) * len(self.seeds)
        return curves.runs(slice(i, i + len(self.seeds)))

    def by_trial(self, curves: Curves) -> NDArray[np.float64]:
        """Return the held-out losses by trial and seed [trials, E, seeds]."""
        return np.stack([self.at(curves, trial).heldout for trial in self.trials])


class Store:
    """Curves on disk: `folders` are read in order, the last one is written.

    Args:
        folders: default: the bundled store, then `$METAOPT_CACHE/baselines` (by default `~/.cache/metaopt/baselines`).
    """

    def __init__(self, folders: tuple[Path, ...] | None = None) -> None:
        self.folders = folders or (BUNDLED, user_cache("baselines"))
        self._used: set[str] = set()

    def get(self, key: Key) -> Curves | None:
        """Return stored curves, or None if there are none for exactly this key; a damaged file, or one with another key, counts as none."""
        text = key.to_json()
        file_name = _file_name(text)
        self._used.add(file_name)
        for folder in self.folders:
            arrays = _read(folder / file_name)
            if _text(arrays) == text:
                diverged = arrays["diverged"]
                heldout, train = (_joined(arrays[name], len(diverged)) for name in ("heldout", "train"))
                return Curves(arrays["steps"].astype(np.float64), heldout, train, diverged)
        return None

    def put(self, key: Key, curves: Curves) -> None:
        """Write curves (losses as float32) so that the file appears whole or not at all; last writer wins with equal content."""
        folder = self.folders[-1]
        folder.mkdir(parents=True, exist_ok=True)
        curves = key.kept(curves)
        text = key.to_json()
        versions = json.dumps({"python": platform.python_version(), "torch": torch.__version__}, sort_keys=True)
        arrays: dict[str, NDArray[Any]] = {
            "steps": curves.steps.astype(np.float32),
            "heldout": _planes(curves.heldout),
            "train": _planes(curves.train),
            "diverged": np.ascontiguousarray(curves.diverged),
            **{name: np.frombuffer(text.encode(), np.uint8) for name, text in {"key": text, "versions": versions}.items()},
        }
        _write(folder / _file_name(text), gzip.compress(safetensors.numpy.save(arrays), mtime=0))

    def merge(self, folder: Path) -> int:
        """Copy the curves that the last folder lacks from another one (of another machine), and return how many they were.

        A file that is damaged, or whose name does not belong to the key in it, is left where it is.
        """
        target, copied = self.folders[-1], 0
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            if not (target / path.name).exists() and _file_name(_text(_read(path))) == path.name:
                _write(target / path.name, path.read_bytes())
                copied += 1
        return copied

    def prune(self) -> int:
        """Remove all curves from the last folder that this object was not asked for, and return how many they were."""
        unused = [path for path in self.folders[-1].glob(f"*{_SUFFIX}") if path.name not in self._used]
        for path in unused:
            path.unlink()
        return len(unused)


def _file_name(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest() + _SUFFIX


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """Return what a file holds, or nothing if there is none or it is damaged."""
    try:
        return safetensors.numpy.load(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error, SafetensorError):
        return {}


def _text(arrays: dict[str, NDArray[Any]]) -> str:
    """Return the key in a file."""
    return arrays["key"].tobytes().decode() if "key" in arrays else ""


def _planes(losses_EN: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return float32 losses as bytes [4, N * E]: first bytes of all, run by run, then second ones, so that neighbours are alike."""
    return np.ascontiguousarray(np.ascontiguousarray(losses_EN.T, np.float32).view(np.uint8).reshape(-1, 4).T)


def _joined(planes: NDArray[np.uint8], runs: int) -> NDArray[np.float64]:
    """Return the losses [E, N] that `_planes` took apart, laid out as fresh ones are, for sums depend on it."""
    return np.ascontiguousarray(planes.T).view(np.float32).reshape(runs, -1).T.astype(np.float64, order="C")


def _write(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".curves-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def user_cache(name: str) -> Path:
    """Return the user's folder for curves of one sort; nothing is made."""
    root = os.environ.get("METAOPT_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "metaopt")
    return Path(root) / name
