"""Commit the state of an outer loop to a directory that exists whole or not at all, and find the last one that can be trusted.

Layout: `checkpoints/step-00001234/` with the caller's files and `manifest.json`, written last: schema, time, step, config hash, versions,
parent, and size and sha256 of each file, sealed by a hash of its own. Loaders do not notice a flipped bit [measured], hence the hashes.
The files are equal bytes for equal states; the manifest alone depends on the clock (`created`).
"""

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metaopt.errors import CheckpointError, CorruptCheckpointError, IncompatibleCheckpointError
from metaopt.outer.blobs import from_json, to_json
from metaopt.outer.run_directory import check_name
from metaopt.outer.storage import Storage

__all__ = ["SCHEMA", "Checkpoint", "Keep", "Meta", "check_compatible", "latest", "save"]

SCHEMA = 2
READABLE = (1, 2)  # 2 added optional files and keys, which readers miss in checkpoints of schema 1 without harm
MANIFEST = "manifest.json"
_COMMIT = re.compile(r"step-(\d{8,})")
_UNFINISHED = ".unfinished-"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Meta:
    """What a manifest says about the run: `score` (lower is better) chooses the best checkpoint to keep."""

    config_hash: str
    versions: Mapping[str, str]
    score: float | None = None


@dataclass(frozen=True)
class Keep:
    """Which commits stay: the `last` ones, the `best` ones by score, and each `every`-th of the run."""

    last: int = 3
    best: int = 1
    every: int = 10


@dataclass(frozen=True)
class Checkpoint:
    """A commit whose files all had their hashes when it was opened. `fallbacks` has a line for each newer one that was refused."""

    path: Path
    manifest: Mapping[str, Any]
    fallbacks: tuple[str, ...] = field(default=())

    @property
    def step(self) -> int:
        """Outer steps done."""
        return int(self.manifest["step"])

    @property
    def names(self) -> list[str]:
        """Names of the caller's files."""
        return sorted(self.manifest["files"])

    def read(self, name: str) -> bytes:
        """Return the bytes of file `name`, checked again.

        Raises:
            CorruptCheckpointError: no such file, cut, or changed.
        """
        if name not in self.manifest["files"]:
            raise CorruptCheckpointError(f"{self.path}: no file {name!r}; it has {', '.join(self.names)}")
        entry, path = self.manifest["files"][name], self.path / name
        data = _read(path)
        if len(data) != entry["bytes"] or _sha256(data) != entry["sha256"]:
            raise CorruptCheckpointError(f"{path}: cut or changed ({len(data)} bytes, {entry['bytes']} in the manifest)")
        return data


def save(
    directory: Path,
    step: int,
    files: Mapping[str, bytes | Callable[[], bytes]],
    meta: Meta,
    keep: Keep = Keep(),
    storage: Storage = Storage(),  # noqa: B008  (stateless)
) -> Checkpoint:
    """Commit `files` as the state after `step` outer steps, verify it, then delete the commits that `keep` does not name.

    Commit the metrics first: a checkpoint may only count rows that are on the disk.

    Args:
        directory: `checkpoints/` of a run; exists.
        step: outer steps done, [0, inf).
        files: name -> content, or a function that gives it (called just before its write).
        meta: config hash, versions and score for the manifest.

    Raises:
        CheckpointError: nothing was committed (disk full, for one); earlier commits are as they were.
        CorruptCheckpointError: the disk did not keep what was written; nothing was deleted.
    """
    target = directory / f"step-{step:08d}"
    fresh, old = directory / f"{_UNFINISHED}new-{target.name}", directory / f"{_UNFINISHED}old-{target.name}"
    try:
        for leftover in directory.glob(f"{_UNFINISHED}*"):
            storage.remove(leftover)
        storage.make_directory(fresh)
        entries = {}
        for name in sorted(files):
            content = files[name]
            data = content() if callable(content) else content
            storage.write(fresh / check_name(name, "checkpoint file"), data)
            entries[name] = {"bytes": len(data), "sha256": _sha256(data)}
        storage.write(fresh / MANIFEST, _seal(_manifest(directory, step, entries, meta)))
        storage.sync_directory(fresh)
        if target.exists():  # a commit that a resume fell back from, or the same step again
            storage.rename(target, old)
        storage.rename(fresh, target)
        storage.sync_directory(directory)
    except Exception as error:
        with suppress(OSError):
            if old.exists() and not target.exists():
                storage.rename(old, target)
            if fresh.exists():
                storage.remove(fresh)
        if isinstance(error, OSError):
            raise CheckpointError(f"{target}: not committed ({error.strerror or error}); earlier commits are valid") from error
        raise
    commit = _open(target)
    _prune(directory, keep, storage)
    return commit


def latest(directory: Path) -> Checkpoint | None:
    """Return the newest commit that verifies, or None when there is none at all; newer ones that do not are named in the log.

    Raises:
        CorruptCheckpointError: there are commits and none verifies.
        IncompatibleCheckpointError: the newest sound one has another schema.
    """
    refused: list[str] = []
    for path in _commits(directory):
        try:
            commit = replace(_open(path), fallbacks=tuple(refused))
        except CorruptCheckpointError as error:
            refused.append(str(error))
            continue
        for line in refused:
            _log.warning("%s; falling back to %s", line, path.name)
        return commit
    if refused:
        raise CorruptCheckpointError(f"no usable checkpoint in {directory}: {'; '.join(refused)}")
    return None


def check_compatible(checkpoint: Checkpoint, meta: Meta) -> None:
    """Refuse to continue from a checkpoint of another config or other versions, for the promise of equal bytes would not hold.

    Raises:
        IncompatibleCheckpointError: listing every difference.
    """
    manifest = checkpoint.manifest
    differences = []
    if manifest["config_hash"] != meta.config_hash:
        differences.append(f"config hash {manifest['config_hash']} (now {meta.config_hash})")
    for name in sorted({*manifest["versions"], *meta.versions}):
        then, now = manifest["versions"].get(name, "none"), meta.versions.get(name, "none")
        if then != now:
            differences.append(f"{name} {then} (now {now})")
    if differences:
        raise IncompatibleCheckpointError(
            f"{checkpoint.path} was written with {', '.join(differences)}: use the same, or another run directory"
        )


def _manifest(directory: Path, step: int, entries: Mapping[str, Any], meta: Meta) -> dict[str, Any]:
    parent = next((manifest for path, manifest in _manifests(directory).items() if manifest["step"] < step), None)
    return {
        "schema": SCHEMA,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "step": step,
        "commit": 1 if parent is None else parent["commit"] + 1,
        "parent": None if parent is None else f"step-{parent['step']:08d}",
        "config_hash": meta.config_hash,
        "versions": dict(meta.versions),
        "score": meta.score,
        "files": dict(entries),
    }


def _seal(manifest: Mapping[str, Any]) -> bytes:
    return to_json({**manifest, "seal": _sha256(to_json(manifest))})


def _open(path: Path) -> Checkpoint:
    commit = Checkpoint(path, _open_manifest(path))
    for name in commit.names:
        commit.read(name)
    return commit


def _open_manifest(path: Path) -> dict[str, Any]:
    place = path / MANIFEST
    data = _read(place)
    try:
        manifest: Any = from_json(data)
    except CorruptCheckpointError as error:
        raise CorruptCheckpointError(f"{place}: {error}") from error
    seal = manifest.pop("seal", None) if isinstance(manifest, dict) else None
    if seal is None or _seal(manifest) != data or f"step-{manifest['step']:08d}" != path.name:
        raise CorruptCheckpointError(f"{place}: changed")
    assert isinstance(manifest, dict)
    if manifest["schema"] not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise IncompatibleCheckpointError(f"{path} has checkpoint schema {manifest['schema']}, this version of metaopt reads {known}")
    return manifest


def _prune(directory: Path, keep: Keep, storage: Storage) -> None:
    """Delete what `keep` does not name and what is no commit; a failure to delete costs only space."""
    manifests = _manifests(directory)
    scored = sorted((manifest["score"], -manifest["step"], path) for path, manifest in manifests.items() if manifest["score"] is not None)
    kept = set(list(manifests)[: keep.last]) | {path for *_, path in scored[: keep.best]}
    kept |= {path for path, manifest in manifests.items() if keep.every and manifest["commit"] % keep.every == 0}
    for path in [*_commits(directory), *directory.glob(f"{_UNFINISHED}*")]:
        if path not in kept:
            try:
                storage.remove(path)
            except OSError as error:
                _log.warning("%s: could not be deleted (%s)", path, error.strerror)


def _commits(directory: Path) -> list[Path]:
    """Return the directories that are named like commits, newest first."""
    found = [(int(match[1]), path) for path in directory.iterdir() if (match := _COMMIT.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _manifests(directory: Path) -> dict[Path, dict[str, Any]]:
    """Return the sound manifests, newest first."""
    found = {}
    for path in _commits(directory):
        with suppress(CorruptCheckpointError):
            found[path] = _open_manifest(path)
    return found


def _read(path: Path) -> bytes:
    """Return the bytes of a plain file; links could lead out of the run directory."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read()
    except OSError as error:
        raise CorruptCheckpointError(f"{path}: {error.strerror}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
